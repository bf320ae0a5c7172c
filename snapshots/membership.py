"""The marker of a directory whose log is a quorum's: DATA/quorum. It names the stream.

Rule: such a directory is written only after the stream. So nothing else may write an event to it: every command that
would refuses it (`write_refusal`).
"""

from __future__ import annotations

from contextlib import closing

import msgspec

from engine.disk import Disk
from engine.errors import DiskFault

QUORUM_FILE = "quorum"
FILE_BYTES_MAX = 4 * 2**10


class Membership(msgspec.Struct, frozen=True):
    """The stream that a directory belongs to, by its name, and the id of its log in hex."""

    stream: str
    log_id: str


def read_membership(disk: Disk, data_directory: str) -> Membership | None:
    """Read the marker, None if there is none. Raises `DiskFault` if it can't be decoded."""
    path = f"{data_directory}/{QUORUM_FILE}"
    if not disk.exists(path):
        return None
    with closing(disk.open(path)) as file:
        data = file.read_at(0, FILE_BYTES_MAX)
    try:
        return msgspec.json.decode(data, type=Membership)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        remedy = 'It is to hold {"stream": NAME, "log_id": HEX}. If its text is lost, start with an empty directory.'
        raise DiskFault("the marker of a quorum's directory can't be read", path=path, remedy=remedy) from error


def write_membership(disk: Disk, data_directory: str, membership: Membership) -> None:
    """Mark a directory as a quorum's, durably."""
    disk.write_whole(f"{data_directory}/{QUORUM_FILE}", [msgspec.json.encode(membership) + b"\n"])


def write_refusal(disk: Disk, data_directory: str) -> str | None:
    """Say why no event may be written to a directory but by its quorum, None if it is of none."""
    member = read_membership(disk, data_directory)
    if member is None:
        return None
    what = f"{data_directory} is of a quorum, whose log is the stream {member.stream!r}: nothing is written here alone"
    return f"{what}; do it on the running quorum, or take the directory out with: scoreboard quorum export --help"


def remove_membership(disk: Disk, data_directory: str) -> None:
    """Remove the marker, durably: the directory is a leader's."""
    path = f"{data_directory}/{QUORUM_FILE}"
    if disk.exists(path):
        disk.remove(path)
        disk.sync_directory(data_directory)
