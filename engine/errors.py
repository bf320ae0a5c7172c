"""The errors, by whose fault they are: the server's (busy, stopping, deposed) or the disk's.

A command that the rules refuse is the caller's fault. It is an expected answer, so it is a value and not an exception
(`engine.commands.Rejection`). Every error here is raised; none is only logged.
"""

from __future__ import annotations


class ScoreboardError(Exception):
    """The base of every error that this project raises on purpose."""


class Overloaded(ScoreboardError):
    """The inbox is full, or the server is stopping. Nothing was written; the caller may retry.

    `retry_after` is in whole seconds.
    """

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoQuorum(Overloaded):
    """The log is not known to be writable: no majority of its servers answers. Nothing was written; retry."""


class LostPlace(ScoreboardError):
    """Another frame is where an append belongs: another node leads. Nothing of the append was or will be applied."""


class OutcomeUnknown(ScoreboardError):
    """The write may or may not be on disk. The caller must retry with the same actionId."""


class LeaderDeposed(ScoreboardError):
    """A newer epoch began elsewhere. Nothing was written here, and nothing will be. The caller must use its leader."""


class DiskFault(ScoreboardError):
    """The disk, or a file on it, is not as it must be. The process stops, or does not start.

    The message has the path, the byte offset and the seq as far as they are known, and what an operator can do.
    """

    def __init__(
        self, what: str, *, path: str, offset: int | None = None, seq: int | None = None, remedy: str = ""
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
    """A write or an fsync failed. It is never tried again, because the kernel may have dropped the pages."""


class NoSpace(WriteFailed):
    """The disk or a quota is full. What was to be written may be there in part."""


class DiskFull(DiskFault):
    """The log needs a new segment, and the disk has no room for it. Nothing was written, and nothing is in doubt.

    The log goes on as soon as there is room, so the caller may retry.
    """

    def again(self) -> DiskFull:
        """Make a new error of the same content: a shared one would collect the stacks of all callers."""
        return DiskFull(self.what, path=self.path, seq=self.seq, remedy=self.remedy)


class FrameTooLong(ScoreboardError):
    """What one submission makes is too long for one frame of this log. Nothing was written."""

    def __init__(self, length: int, at_most: int) -> None:
        super().__init__(f"it makes {length} bytes of the log at once, and at most {at_most} fit here")


class PlaceLost(DiskFault):
    """What this process holds is no longer at its path: it was moved, removed or replaced, or the file was cut short.

    Another process may use what is there now, so this one writes nothing more.
    """


class LogDamaged(DiskFault):
    """The log has damage that recovery may not repair by itself. `engine.recovery` has the table."""


class HistoriesDiffer(LogDamaged):
    """The log and the snapshot are both whole, but of different histories: neither can complete the other."""


class SnapshotDamaged(DiskFault):
    """A snapshot file does not verify. Opening uses the snapshot before it."""


class RunDamaged(DiskFault):
    """A run of the index of actions does not verify. It is derived: the log has all that was in it."""


class DirectoryInUse(DiskFault):
    """Another process holds the lock of this data directory."""


class NoLongerKept(ScoreboardError):
    """The log was asked for a seq that retention has removed. `first_seq` is the oldest seq that is kept."""

    def __init__(self, seq: int, first_seq: int) -> None:
        super().__init__(f"seq {seq} is no longer kept; the log begins at seq {first_seq}")
        self.seq = seq
        self.first_seq = first_seq
