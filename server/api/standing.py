"""What a node is among the others: the leader, a leader that was deposed, or a replica; and what follows for requests.

    role        writes                                  reads
    -------     -------------------------------------   -------------------------------------------------------------
    leader      taken                                   answered
    deposed     421 NOT_LEADER, with who leads now      answered, `stale` since it was deposed: they are true up to then
    replica     307 to the leader's public address,     answered with the lag in headers, `stale` when the leader was
                else 421 NOT_LEADER                     not heard; 503 as long as nobody can vouch for them

Rules:
- A role changes while requests run: whoever asks, asks anew. A leader never becomes a replica within a process.
- A write that was let in before its leader was deposed is refused by the gate, the last place before the actor; one
  that the actor had already is refused by the actor (`LeaderDeposed`), with the same answer.
- A leader that was deposed names the new one where it was told its address, and never redirects to it. A replica sends
  clients on to an address that its own leader gave it, which its operator chose; a deposed leader has the address from
  whoever may read the log, and a redirect would have clients send their tokens for writing there unasked.
- Every answer to a read of a replica tells its lag, refusals included; no number is made up. Before the leader was
  heard the records are `unknown`, and the milliseconds are the age of the last event that is here
  (`server.replication.lag` argues why), or `unknown` where there is none.
- `minSeq` waits for a bounded time, in a bounded number of requests, and then says how far behind the node is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec
import trio

from engine.actor import Actor, ActorStatistics, Submission
from engine.commands import Command, Outcome
from engine.limits import SEQ_MAX
from engine.scoreboard import Scoreboard
from server import bounds
from server.http.messages import Headers, Refused, Request, invalid, query_values
from server.replication.sharding import Shard, shard_of
from snapshots.promotion import Successor

_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
UNKNOWN = "unknown"
"""What a lag header says instead of a number that nobody knows. A word, so that no program takes it for one."""

_RETRY: Headers = (("retry-after", str(bounds.RETRY_AFTER_SECONDS)),)


class Followed(msgspec.Struct, frozen=True):
    """What a replica knows of its leader. `fault`: why nobody can vouch for what is here, None if it can be served.

    `age_ms` is since the leader was heard, or since the start if it never was; `stale`: that is too long. `lag_records`
    is None before the leader was heard; `lag_ms` is then the age of the last event that is here, None if there is none.
    """

    leader: str
    public_url: str | None
    fault: str | None
    lag_records: int | None
    lag_ms: int | None
    age_ms: int
    stale: bool
    connected: bool


class Standing:
    """The role of this process now. `view` is a replica's, None for a leader."""

    def __init__(
        self, view: Callable[[], Followed] | None = None, shard: Shard | None = None, wait_seconds: float = 5.0
    ) -> None:
        self.view = view
        self.shard = shard
        self.successor: Successor | None = None
        self._deposed_s = 0.0
        self._wait_seconds = wait_seconds
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def takes_writes(self) -> bool:
        """Whether this is the leader."""
        return self.view is None and self.successor is None

    def depose(self, successor: Successor) -> None:
        """Be the leader no longer; again, whenever more is known of who is."""
        if self.successor is None:
            self._deposed_s = trio.current_time()
        self.successor = successor

    def advanced(self) -> None:
        """Wake who waits for a position."""
        self._waiting.unpark_all()

    def check_write(self, request: Request) -> None:
        """Refuse a write unless this is the leader. Raises `Refused`."""
        if self.successor is not None:
            raise self.deposed()
        if self.view is None:
            return
        followed = self.view()
        details = {"leader": followed.public_url or followed.leader}
        if followed.public_url is None:
            raise Refused(421, "NOT_LEADER", "This node is a replica: writes go to the leader.", details)
        target = followed.public_url.rstrip("/") + request.path + (f"?{request.query}" if request.query else "")
        message = "This node is a replica: send it to the leader."
        raise Refused(307, "NOT_LEADER", message, details, (("location", target),))

    def deposed(self) -> Refused:
        """Make the answer to a write of a leader that was deposed: nothing was done. See the rules."""
        successor = self.successor
        if successor is None:
            return Refused(421, "NOT_LEADER", "This node is not the leader: nothing was done.", {"leader": None})
        message = f"This node was the leader until epoch {successor.epoch} began elsewhere: nothing was done."
        return Refused(421, "NOT_LEADER", message, {"leader": successor.leader, "epoch": successor.epoch})

    def check_read(self) -> None:
        """Refuse a read as long as nobody can vouch for what is here. Raises `Refused`."""
        if self.view is not None and (followed := self.view()).fault is not None:
            raise self._behind(followed.fault, followed)

    def check_board(self, board_id: str) -> None:
        """Refuse a board of another shard. Raises `Refused`."""
        shard = self.shard
        if shard is not None and not shard.holds(board_id):
            has = f"{shard_of(board_id, shard.count)}/{shard.count}"
            message = f"This node holds shard {shard}; the board is in shard {has}."
            raise Refused(421, "WRONG_SHARD", message, {"boardId": board_id, "shard": has})

    def check_action(self) -> None:
        """Refuse receipts where the actions are not known. Raises `Refused`."""
        if self.shard is not None and self.view is not None:
            followed = self.view()
            details = {"leader": followed.public_url or followed.leader}
            raise Refused(421, "NOT_LEADER", "A replica with a shard knows no actions: ask the leader.", details)

    def stale_ms(self) -> int | None:
        """Give the age of what is here where it is stale, None where it is fresh."""
        if self.successor is not None:
            return round((trio.current_time() - self._deposed_s) * 1000)
        if self.view is None:
            return None
        followed = self.view()
        if followed.stale and followed.lag_records is None and followed.lag_ms is not None:
            return max(followed.age_ms, followed.lag_ms)  # nothing was heard, and what is here is older than the start
        return followed.age_ms if followed.stale else None

    def lag_headers(self) -> Headers:
        """Give the headers that every answer to a read of a replica has, refusals too; what is not known is said so."""
        if self.view is None:
            return ()
        followed = self.view()
        records, milliseconds = followed.lag_records, followed.lag_ms
        return (
            ("x-scoreboard-lag-records", UNKNOWN if records is None else str(records)),
            ("x-scoreboard-lag-ms", UNKNOWN if milliseconds is None else str(milliseconds)),
        )

    async def wait_position(self, request: Request, scoreboard: Scoreboard) -> None:
        """Wait until the position that a read asks for is here. Raises `Refused`."""
        wanted = wanted_position(request.query)
        if wanted is None:
            return
        epoch, seq = wanted

        def is_here() -> bool:
            if epoch is None or scoreboard.epoch == epoch:
                return scoreboard.seq >= seq
            return scoreboard.epoch > epoch

        if not is_here() and len(self._waiting) < bounds.POSITION_WAITERS_MAX:
            with trio.move_on_after(self._wait_seconds):
                while not is_here():
                    await self._waiting.park()
        if not is_here():
            followed = None if self.view is None else self.view()
            details = {"minSeq": seq, "epoch": scoreboard.epoch, "seq": scoreboard.seq}
            raise self._behind("this node has not come as far yet", followed, **details)

    @staticmethod
    def _behind(why: str, followed: Followed | None, **details: object) -> Refused:
        if followed is not None:
            details |= {"lagRecords": followed.lag_records, "lagMs": followed.lag_ms, "ageMs": followed.age_ms}
        return Refused(503, "REPLICA_BEHIND", f"{why[:1].upper()}{why[1:].rstrip('.')}.", details, _RETRY)


def wanted_position(query: str) -> tuple[int | None, int] | None:
    """Read minEpoch and minSeq; None without them. An epoch alone stands for its beginning. Raises `Refused`."""
    if "minSeq" not in query and "minEpoch" not in query:
        return None
    values = query_values(query, ("minSeq", "minEpoch"))
    numbers: dict[str, int] = {}
    for name, text in values.items():
        if not _NUMBER.fullmatch(text) or int(text) > SEQ_MAX:
            raise invalid(name, f"{name} must be a whole number from 0 to {SEQ_MAX}.")
        numbers[name] = int(text)
    return (numbers.get("minEpoch"), numbers.get("minSeq", 0)) if numbers else None


class Gate:
    """Stands before the actor: the writer that the service knows, on a replica too, where there is none yet."""

    def __init__(self, scoreboard: Scoreboard, standing: Standing) -> None:
        self.scoreboard = scoreboard
        self.actor: Actor | None = None
        self._standing = standing

    async def submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """See `Actor.submit`. Raises `Refused` too."""
        return await self._open().submit(commands)

    def submit_nowait(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> object:
        """See `Actor.submit_nowait`. Raises `Refused` too."""
        return self._open().submit_nowait(commands, when_done)

    def statistics(self) -> ActorStatistics:
        """Tell how much waits."""
        return ActorStatistics(0, True) if self.actor is None else self.actor.statistics()

    def depose(self) -> None:
        """Have the actor write no more; what waits for it is refused. See `Actor.depose`."""
        if self.actor is not None:
            self.actor.depose()

    def _open(self) -> Actor:
        if self.actor is None or not self._standing.takes_writes:
            raise self._standing.deposed()
        return self.actor
