"""The limits on connections, in all and for each client, and on the memory of request bodies. Pure.

    refusal = limits.fault(group)           # or limits.enter(group), and later limits.leave(group)
    held = memory.change(group, held, len(body))

Rules:
- A group is one client, as `address_group` gives it. The empty group stands for trusted proxies. Each of them carries
  many clients, so it has no limit of its own, neither for connections nor for bodies.
- A viewer's connection counts in all, because it is a file, but not for its client: the live channel has its own limit.
- Small bodies are not counted: ordinary requests go on when large ones have taken all the memory.
"""

from __future__ import annotations

from server import bounds
from server.http.messages import Refused, overloaded


def add_to(counts: dict[str, int], key: str, more: int) -> None:
    """Change a count. A count of 0 is left out."""
    count = counts.get(key, 0) + more
    if count:
        counts[key] = count
    else:
        del counts[key]


class ConnectionLimits:
    """Counts connections. Each one that enters must leave."""

    def __init__(self, in_all_max: int, of_group_max: int) -> None:
        self._in_all_max = in_all_max
        self._of_group_max = of_group_max
        self._of_group: dict[str, int] = {}
        self.in_all = 0

    def fault(self, group: str) -> Refused | None:
        """Say why another connection of this group is refused, None if it is not."""
        if self.in_all >= self._in_all_max:
            return overloaded("The server has as many connections as it can.")
        if group and self._of_group.get(group, 0) >= self._of_group_max:
            return overloaded("There are too many connections from this address.")
        return None

    def enter(self, group: str) -> None:
        self.in_all += 1
        self.count_in(group)

    def leave(self, group: str) -> None:
        self.in_all -= 1
        self.count_out(group)

    def leave_uncounted(self) -> None:
        """Let a connection leave that does not count for its group."""
        self.in_all -= 1

    def count_in(self, group: str) -> None:
        """Count a connection for its group again, after `count_out`."""
        add_to(self._of_group, group, 1)

    def count_out(self, group: str) -> None:
        """Stop counting a connection for its group; it still counts in all."""
        add_to(self._of_group, group, -1)

    def _check(self) -> None:
        assert all(count > 0 for count in self._of_group.values())
        assert 0 <= sum(self._of_group.values()) <= self.in_all <= self._in_all_max


class BodyMemory:
    """The memory that the large bodies of all connections share. Each connection remembers what it took.

    One group gets only a part of it. A body is read before its sender is known, so a client without a token could
    otherwise take all the memory and keep every large batch out.
    """

    __slots__ = ("_in_all_max", "_of_group", "_of_group_max", "used")

    def __init__(self, in_all_max: int, of_group_max: int) -> None:
        self._in_all_max = in_all_max
        self._of_group_max = of_group_max
        self._of_group: dict[str, int] = {}
        self.used = 0

    def change(self, group: str, had: int, wanted: int) -> int:
        """Take memory for a body of `wanted` bytes that has `had` already. Give what it has now. Raises `Refused`."""
        wanted = wanted if wanted > bounds.SMALL_BODY_BYTES_MAX else 0
        more = wanted - had
        if not more:
            return wanted
        if more > 0 and self.used + more > self._in_all_max:
            raise overloaded("The server holds as many large requests as it can.")
        if more > 0 and group and self._of_group.get(group, 0) + more > self._of_group_max:
            raise overloaded("The server holds as many large requests from this address as it can.")
        self.used += more
        add_to(self._of_group, group, more)
        return wanted

    def _check(self) -> None:
        assert all(used > 0 for used in self._of_group.values())
        assert 0 <= sum(self._of_group.values()) == self.used <= self._in_all_max
