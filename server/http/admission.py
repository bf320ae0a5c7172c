"""What there is room for: connections, in all and for each client, and the bodies of requests. Pure.

Rules:
- A client is what `address_group` takes for one. The empty group is for those who stand for many clients, trusted
  proxies; it has no bound of its own, neither for connections nor for bodies.
- A connection that has become a viewer still counts in all, because it is a file, but no longer as one of its client:
  the live channel has a bound of its own for that, which an operator may set much higher.
- Small bodies need no room: however full it is with large ones, ordinary requests go on.
"""

from __future__ import annotations

from server import bounds
from server.http.messages import Refused, overloaded


class ConnectionLimits:
    """Counts connections. Who is let in must be counted out again."""

    def __init__(self, in_all_max: int, of_group_max: int) -> None:
        self._in_all_max = in_all_max
        self._of_group_max = of_group_max
        self._of_group: dict[str, int] = {}
        self.in_all = 0

    def fault(self, group: str) -> Refused | None:
        """Say why there is no room for another connection of this group, None if there is."""
        if self.in_all >= self._in_all_max:
            return overloaded("The server has as many connections as it can.")
        if group and self._of_group.get(group, 0) >= self._of_group_max:
            return overloaded("There are too many connections from this address.")
        return None

    def enter(self, group: str) -> None:
        """Count a connection in."""
        self.in_all += 1
        self.count_in(group)

    def leave(self, group: str) -> None:
        """Count a connection out."""
        self.in_all -= 1
        self.count_out(group)

    def count_in(self, group: str) -> None:
        """Count a connection, which is one of all already, as one of its group."""
        self._of_group[group] = self._of_group.get(group, 0) + 1

    def count_out(self, group: str) -> None:
        """Count a connection as one of its group no longer."""
        left = self._of_group[group] - 1
        if left:
            self._of_group[group] = left
        else:
            del self._of_group[group]

    def _check(self) -> None:
        assert all(count > 0 for count in self._of_group.values())
        assert 0 <= sum(self._of_group.values()) <= self.in_all <= self._in_all_max


class BodyMemory:
    """The memory that the larger bodies of all connections share. Each keeps account of what it took.

    One group gets only a part of it: a body is read before its sender is known, so anybody could fill the whole room,
    and keep every large batch out.
    """

    __slots__ = ("_in_all_max", "_of_group", "_of_group_max", "used")

    def __init__(self, in_all_max: int, of_group_max: int) -> None:
        self._in_all_max = in_all_max
        self._of_group_max = of_group_max
        self._of_group: dict[str, int] = {}
        self.used = 0

    def change(self, group: str, had: int, wanted: int) -> int:
        """Take so much for a body that had so much, and give what it has then. Raises `Refused`."""
        wanted = wanted if wanted > bounds.SMALL_BODY_BYTES_MAX else 0
        more = wanted - had
        if not more:
            return wanted
        used = self._of_group.get(group, 0) + more
        if more > 0 and self.used + more > self._in_all_max:
            raise overloaded("The server holds as many large requests as it can.")
        if more > 0 and group and used > self._of_group_max:
            raise overloaded("The server holds as many large requests from this address as it can.")
        self.used += more
        if used:
            self._of_group[group] = used
        else:
            del self._of_group[group]
        return wanted

    def _check(self) -> None:
        assert all(used > 0 for used in self._of_group.values())
        assert 0 <= sum(self._of_group.values()) == self.used <= self._in_all_max
