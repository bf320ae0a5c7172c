"""What can go wrong, sorted by blame: the caller's, ours for being too busy or no longer in charge, the disk's.

A refusal of a command is not an exception but a value, `engine.commands.Rejection`: it is an expected answer.
Everything here is raised. Nothing here is ever logged and then ignored.
"""

from __future__ import annotations


class ScoreboardError(Exception):
    """The root of every error that this project raises on purpose."""


class Overloaded(ScoreboardError):
    """The inbox is full or the server is draining: nothing was written, the caller may retry.

    `retry_after` is in whole seconds.
    """

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutcomeUnknown(ScoreboardError):
    """The write may or may not be on disk: the caller must retry with the same actionId."""


class LeaderDeposed(ScoreboardError):
    """A newer epoch began elsewhere: nothing was written here and nothing will be. The caller must go to its leader."""


class DiskFault(ScoreboardError):
    """The disk, or a file on it, is not as it must be. The process stops or does not start.

    Tells the file, the byte offset and the seq where they are known, and what an operator can do next.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str,
        offset: int | None = None,
        seq: int | None = None,
        remedy: str = "",
    ) -> None:
        self.what = what
        self.path = path
        self.offset = offset
        self.seq = seq
        self.remedy = remedy
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = self.path
        if self.offset is not None:
            where += f", offset {self.offset}"
        if self.seq is not None:
            where += f", seq {self.seq}"
        sentence = f"{self.what} ({where})."
        return f"{sentence} {self.remedy}" if self.remedy else sentence


class WriteFailed(DiskFault):
    """A write or an fsync failed. Final: the kernel may have dropped the pages, so it is never tried again."""


class LogDamaged(DiskFault):
    """The log holds something that recovery may not repair by itself; `engine.recovery` has the table."""


class HistoriesDiffer(LogDamaged):
    """The log and the snapshot are each whole, but do not belong together: no part of the one completes the other."""


class SnapshotDamaged(DiskFault):
    """A snapshot file does not verify; recovery falls back to the one before."""


class DirectoryInUse(DiskFault):
    """Another process holds the lock of this data directory."""


class NoLongerKept(ScoreboardError):
    """The log was asked for a seq that retention has removed. `first_seq` is the oldest one still kept."""

    def __init__(self, seq: int, first_seq: int) -> None:
        super().__init__(f"seq {seq} is no longer kept; the log begins at seq {first_seq}")
        self.seq = seq
        self.first_seq = first_seq
