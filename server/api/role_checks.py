"""What the role of this node means for a request. `server.role` has the table of the roles.

    checks.check_write(request)      307 or 421 NOT_LEADER unless this node leads
    checks.check_read()              503 REPLICA_BEHIND where the state may be wrong or too old
    checks.lag_headers()             the headers of a replica's answers to reads

Rules:
- The role changes while requests run. So each check asks for the role anew, and no check waits.
- A replica redirects writes to the address that its leader told: an operator chose it. A deposed leader names the new
  leader's address where it knows one, and never redirects: it has the address from a reader of the log, and clients
  would send it their tokens.
- A replica's answers to reads tell its lag, and so do its refusals. An unknown number is the word `unknown`.
"""

from __future__ import annotations

import re

from engine.limits import SEQ_MAX
from server.http.messages import RETRY_SOON, Details, Headers, Refused, Request, invalid
from server.http.target import query_values
from server.replication.freshness import Freshness
from server.replication.sharding import Shard, shard_of
from server.role import CurrentRole, Role
from snapshots.promotion import began_elsewhere

_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
UNKNOWN = "unknown"
"""A lag header's value where the number is not known. A word, so that no program reads it as a number."""


class RoleChecks:
    """The checks of one node. `shard` is the part of the boards that it holds; None: all."""

    def __init__(self, role: CurrentRole, freshness: Freshness, shard: Shard | None = None) -> None:
        self._role = role
        self._freshness = freshness
        self._shard = shard

    def check_write(self, request: Request) -> None:
        """Refuse a write unless this node leads. Raises `Refused`."""
        role = self._role.now
        if role.takes_writes:
            return
        if not role.is_replica:
            raise self.not_leader()
        details = _leader_of(role)
        if role.public_url is None:
            raise Refused(421, "NOT_LEADER", "This node is a replica: writes go to the leader.", details)
        target = role.public_url.rstrip("/") + request.path + (f"?{request.query}" if request.query else "")
        message = "This node is a replica: send it to the leader."
        raise Refused(307, "NOT_LEADER", message, details, (("location", target),))

    def not_leader(self) -> Refused:
        """Make a deposed leader's answer to a write."""
        successor = self._role.now.successor
        if successor is None:
            return Refused(421, "NOT_LEADER", "This node is not the leader: nothing was done.", {"leader": None})
        message = f"This node was the leader until {began_elsewhere(successor)}: nothing was done."
        details: Details = {"leader": successor.leader, "epoch": successor.epoch}
        if successor.history:
            details |= {"history": successor.history}
        return Refused(421, "NOT_LEADER", message, details)

    def check_leads(self) -> None:
        """Refuse unless this node leads, and in a quorum a majority says so. Raises `Refused`."""
        role = self._role.now
        if not role.takes_writes:
            message = f"This node does not lead: it is {role.state.label}."
            raise Refused(503, "NOT_LEADER", message, {"reason": message.rstrip("."), **_leader_of(role)}, RETRY_SOON)
        if role.unconfirmed:
            reason = "no majority of the log's servers answers"
            raise Refused(503, "NO_QUORUM", f"Not ready: {reason}.", {"reason": reason}, RETRY_SOON)

    def check_read(self) -> None:
        """Refuse a read while the role does not vouch for the state here. Raises `Refused`."""
        role = self._role.now
        if not role.vouches:
            raise self.behind(role.reason)

    def holds(self, board_id: str) -> bool:
        """Whether this node holds a board, if there is one of this id."""
        return self._shard is None or self._shard.holds(board_id)

    def check_board(self, board_id: str) -> None:
        """Refuse a board of another shard. Raises `Refused`."""
        shard = self._shard
        if shard is not None and not shard.holds(board_id):
            has = f"{shard_of(board_id, shard.count)}/{shard.count}"
            message = f"This node holds shard {shard}; the board is in shard {has}."
            raise Refused(421, "WRONG_SHARD", message, {"boardId": board_id, "shard": has})

    def check_viewer(self, board_id: str) -> None:
        """Refuse a viewer if a read of this board is refused. Raises `Refused`."""
        self.check_read()
        self.check_board(board_id)

    def check_action(self) -> None:
        """Refuse to look up an action on a node that knows none. Raises `Refused`."""
        role = self._role.now
        if self._shard is not None and role.is_replica:
            message = "A replica with a shard knows no actions: ask the leader."
            raise Refused(421, "NOT_LEADER", message, _leader_of(role))

    def no_past(self) -> Refused:
        """Make the answer of a node that keeps no log to a question about the past."""
        message = "This node keeps no log to read the past from: ask the leader."
        return Refused(421, "NOT_LEADER", message, _leader_of(self._role.now))

    def lag_headers(self) -> Headers:
        """Give a replica's lag as headers; none on a leader."""
        lag = self._freshness.lag()
        if lag is None:
            return ()
        return (
            ("x-scoreboard-lag-records", UNKNOWN if lag.records is None else str(lag.records)),
            ("x-scoreboard-lag-ms", UNKNOWN if lag.ms is None else str(lag.ms)),
        )

    def behind(self, why: str, **details: object) -> Refused:
        """Make the answer to a read that this node can't serve yet."""
        lag = self._freshness.lag()
        if lag is not None:
            details |= {"lagRecords": lag.records, "lagMs": lag.ms, "ageMs": lag.age_ms}
        return Refused(503, "REPLICA_BEHIND", f"{why[:1].upper()}{why[1:].rstrip('.')}.", details, RETRY_SOON)


def _leader_of(role: Role) -> Details:
    return {"leader": role.public_url or role.leader or None}


def wanted_position(query: str) -> tuple[int | None, int] | None:
    """Read minEpoch and minSeq; None without them. An epoch alone means its beginning. Raises `Refused`."""
    if "minSeq" not in query and "minEpoch" not in query:
        return None
    values = query_values(query, ("minSeq", "minEpoch"))
    numbers: dict[str, int] = {}
    for name, text in values.items():
        if not _NUMBER.fullmatch(text) or int(text) > SEQ_MAX:
            raise invalid(name, f"{name} must be a whole number from 0 to {SEQ_MAX}.")
        numbers[name] = int(text)
    return (numbers.get("minEpoch"), numbers.get("minSeq", 0)) if numbers else None
