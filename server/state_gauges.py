"""The state of a node at a scrape, and the gauges that show it (`server.metrics` serves them)."""

from __future__ import annotations

import msgspec

from server.replication.freshness import LagFigures

STATE_GAUGES = {
    "inbox_commands": "Commands that wait for the actor.",
    "registered_users": "Users that were put.",
    "actions": "Actions applied, ever.",
    "action_index_bytes": "Memory of the index of applied actions.",
    "actions_sealed": "Of these, older ones that lie in files, not in memory.",
    "action_files": "The files of older actions that the index uses.",
    "action_reads": "Older actions that were read from their files since the start.",
    "seq": "The last applied event.",
    "epoch": "The current epoch.",
    "snapshot_seq": "The last event that the newest snapshot holds.",
    "snapshot_age_seconds": "Since the newest snapshot was taken.",
    "snapshots_failed": "Snapshots that this process could not write.",
    "log_bytes": "The log on disk.",
    "log_segments": "Files of the log.",
    "disk_free_bytes": "Left on the disk of the data directory; NaN: unknown.",
    "erasures_pending": "Erased users who are still in the files of this node.",
    "erasure_age_seconds": "Since the first of them was erased; NaN: there is none.",
    "open_reviews": "Flagged users who wait for a decision.",
    "held_actions": "Actions that boards hold until somebody decides.",
    "reviews_passed_over": "Flags for which the queue had no room.",
    "live_enabled": "Whether the flag `live` is on.",
    "ready": "Whether /readyz says yes.",
    "followers": "Replicas with a link to this node.",
}
"""The gauges that show the field of `State` of the same name. None shows as NaN, which is "no value" in Prometheus."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The state at a scrape. `snapshot_seq` and `snapshot_age_seconds` are None before the first snapshot."""

    epoch: int
    seq: int
    users: dict[str, int]
    registered_users: int
    actions: int
    action_index_bytes: int
    actions_sealed: int = 0
    action_files: int = 0
    action_reads: int = 0
    inbox_commands: int
    log_bytes: int
    log_segments: int
    snapshot_seq: int | None = None
    snapshot_age_seconds: float | None = None
    snapshots_failed: int = 0
    disk_free_bytes: int | None = None
    erasures_pending: int = 0
    erasure_age_seconds: float | None = None
    open_reviews: int = 0
    held_actions: int = 0
    reviews_passed_over: int = 0
    review_flags: dict[str, int] = {}
    live_enabled: bool = True
    ready: bool = True
    followers: int = 0
    lag: LagFigures | None = None
