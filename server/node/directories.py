"""The checks of a data directory before a start: whose it is, by its marker, and what a replica needs.

    no marker          it is a leader's, or new
    `replica`          it is a replica's: the marker names the leader, and says whether the replica caught up once
    `deposed`          it is a deposed leader's: no node starts in it
    `quorum`           its log is a quorum's: the marker names the stream

Rule: no node starts in a directory of another role. The refusal names the command that changes that.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from engine.disk import Disk
from server.settings.config import ConfigError
from server.settings.secrecy import open_to_others
from snapshots.membership import Membership, read_membership, write_membership
from snapshots.promotion import (
    DEMOTE_NEEDS,
    Marker,
    began_elsewhere,
    demote_command,
    read_deposed,
    read_marker,
    write_marker,
)

log = structlog.get_logger()


def check_leads(disk: Disk, data_dir: str) -> None:
    """Refuse a directory that is not a leader's. Raises `ConfigError`."""
    check_not_deposed(disk, data_dir)
    _check_no_member(disk, data_dir)
    marker = read_marker(disk, data_dir)
    if marker is not None:
        what = f"{data_dir} is a replica's, which follows {marker.leader}"
        run = f"run it with: scoreboard replica --data-dir {data_dir} --leader {marker.leader}"
        lead = f"or make it a leader's with: scoreboard promote --data-dir {data_dir}"
        raise ConfigError("data_dir", f"{what}; {run}; {lead}")


def check_not_deposed(disk: Disk, data_dir: str) -> None:
    """Refuse the directory of a leader whose epoch is over. Raises `ConfigError`."""
    successor = read_deposed(disk, data_dir)
    if successor is not None:
        began = f"{began_elsewhere(successor)}, so this leader must not write"
        command = demote_command(data_dir, successor)
        remedy = f"make it a replica of the new one: {command} {DEMOTE_NEEDS}"
        raise ConfigError("data_dir", f"{data_dir}: {began}; {remedy}")


def _check_no_member(disk: Disk, data_dir: str) -> None:
    member = read_membership(disk, data_dir)
    if member is not None:
        what = f"{data_dir} is of a quorum, whose log is the stream {member.stream!r}"
        run = f"run it with: scoreboard serve --quorum --data-dir {data_dir}"
        raise ConfigError("data_dir", f"{what}; {run}; or take it out with: scoreboard quorum export --help")


def check_member(disk: Disk, data_dir: str, membership: Membership) -> None:
    """Refuse a directory that is not of this quorum, and mark a new one. Raises `ConfigError`."""
    check_not_deposed(disk, data_dir)
    if (marker := read_marker(disk, data_dir)) is not None:
        what = f"{data_dir} is a replica's, which follows {marker.leader}"
        raise ConfigError("data_dir", f"{what}; start with an empty directory: it is filled from the other nodes")
    known = read_membership(disk, data_dir)
    if known is not None and known.log_id != membership.log_id:
        what = f"{data_dir} is of the stream {known.stream!r} with the log {known.log_id}"
        raise ConfigError("data_dir", f"{what}, and quorum.stream names one with the log {membership.log_id}")
    if known is None and disk.exists(f"{data_dir}/log"):
        remedy = f"move it in with: scoreboard quorum import --data-dir {data_dir}; or start with an empty directory"
        raise ConfigError("data_dir", f"{data_dir} is a leader's, and no quorum's; {remedy}")
    if known != membership:
        write_membership(disk, data_dir, membership)


def leader_of(disk: Disk, data_dir: str, named: str) -> str:
    """Give the configured leader, or else the one in the directory's marker. Raises `ConfigError`."""
    marker = read_marker(disk, data_dir)
    url = named or (marker.leader if marker is not None else "")
    if not url:
        raise ConfigError("replication.leader", "a replica needs the address of its leader: --leader URL")
    return url.rstrip("/")


def is_vouched(disk: Disk, data_dir: str) -> bool:
    """Tell whether the replica of this directory caught up once. Then it may serve from its start on."""
    marker = read_marker(disk, data_dir)
    return marker is not None and marker.caught_up


def mark_replica(disk: Disk, data_dir: str, leader: str) -> None:
    """Mark a new directory as a replica's. Raises `ConfigError` if it is a leader's."""
    _check_no_member(disk, data_dir)
    if read_marker(disk, data_dir) is None:
        if disk.exists(f"{data_dir}/log"):
            remedy = f"scoreboard demote --data-dir {data_dir} --to {leader}"
            raise ConfigError("data_dir", f"{data_dir} is a leader's; to make it a replica's: {remedy}")
        write_marker(disk, data_dir, Marker(leader))


class TokenFile:
    """The token for the leader. It is read anew for each link, so it can be renewed while the replica runs."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._last = self._read() if path else ""
        if path and (fault := open_to_others(path)):
            log.warning("token_file_open", path=path, fault=fault)

    def __call__(self) -> str:
        if self._path:
            try:
                self._last = self._read()
            except ConfigError as error:
                log.warning("token_not_read", reason=error.message)  # the one before may still be good
        return self._last

    def _read(self) -> str:
        try:
            return Path(self._path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not ASCII"
            raise ConfigError("replication.token_file", f"{self._path} cannot be read: {reason}") from error
