"""The flags of a log: what an operator switched off for all nodes, until it is switched on again. Pure.

    flags = flags.after(event)               a `FlagPut`
    flags.live                               whether the live channel is on
    decision = decide_flag(flags, command, epoch, seq, now_ms)

A flag is an event, because the log is what every node has: a replica follows it, a restart replays it, a restore and a
new replica know it too. Rejected: a file beside the log, which a restore or a promotion could lose; and a message on
the links of replicas, which a restart forgets.

Invariants:
- A flag is on unless the last event about it says otherwise. So a log without such events needs nothing.
- An event changes something: to put a flag as it is logs nothing.
- A flag that this version does not know is refused where the log is read: a newer version wrote it.

The part `flags` of an image is a msgpack list of the flags that are off, sorted: [name, since when in ms].
"""

from __future__ import annotations

import msgspec

from engine.commands import FlagReceipt, PutFlag
from engine.events import FlagName, FlagPut


class FlagOff(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """A flag that is off, since a time in ms since 1970 UTC."""

    flag: FlagName
    since_ms: int


class Flags(msgspec.Struct, frozen=True):
    """Which flags are off. A value: a change gives another one."""

    off: tuple[FlagOff, ...] = ()

    @property
    def live(self) -> bool:
        """Whether the live channel is on."""
        return not self.off or self.since_ms("live") is None

    def since_ms(self, flag: FlagName) -> int | None:
        """Say since when a flag is off, None if it is on."""
        return next((each.since_ms for each in self.off if each.flag == flag), None)

    def after(self, event: FlagPut) -> Flags:
        """Give the flags after an event."""
        others = [each for each in self.off if each.flag != event.flag]
        off = others if event.enabled else [*others, FlagOff(event.flag, event.time_ms)]
        return Flags(tuple(sorted(off, key=lambda each: each.flag)))

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Give the part of an image that this is; none if every flag is on."""
        return (("flags", msgspec.msgpack.encode(self.off)),) if self.off else ()


def flags_in(parts: tuple[tuple[str, bytes], ...]) -> Flags:
    """Read the part of an image. Raises `msgspec.DecodeError`."""
    data = dict(parts).get("flags")
    return Flags() if data is None else Flags(msgspec.msgpack.decode(data, type=tuple[FlagOff, ...]))


class FlagDecision(msgspec.Struct, frozen=True, gc=False):
    """The event of a command about a flag, none if the flag is so already, and the answer once it is on disk."""

    events: tuple[FlagPut, ...]
    receipt: FlagReceipt


def decide_flag(flags: Flags, command: PutFlag, epoch: int, seq: int, now_ms: int) -> FlagDecision:
    """Decide a command whose event would have this seq and time."""
    if (flags.since_ms(command.flag) is None) is command.enabled:
        return FlagDecision((), FlagReceipt(command.flag, command.enabled, False, epoch, seq - 1))
    event = FlagPut(seq, now_ms, command.flag, command.enabled, command.caller)
    return FlagDecision((event,), FlagReceipt(command.flag, command.enabled, True, epoch, seq))
