"""What callers are told of a user who was erased: the actions stay used, and there is no such user any more."""

from __future__ import annotations

from engine.erased import pack_seqs
from engine.events import UserErased
from engine.record import pack_frame
from engine.rewriting import Forgetting
from tests.server.api.support import READER, REGISTRAR, Bench, both_ways, open_bench
from tests.server.api.test_reversals import reverse


def erase(bench: Bench, user_id: str) -> None:
    """Erase a user, with the event that a node writes."""
    seqs = [seq for seq, event in enumerate(bench.log.events, 1) if getattr(event, "user_id", "") == user_id]
    scoreboard = bench.scoreboard
    event = UserErased(scoreboard.seq + 1, bench.clock_ms(), user_id, "\x001", "dpo", pack_seqs(seqs))
    frame = pack_frame([event], epoch=scoreboard.epoch, previous=bench.log.tail.checksum)
    synced = bench.log.append_frame(scoreboard.seq, frame)
    scoreboard.apply(event, scoreboard.epoch)
    bench.machine.settled([event], synced, 0)


@both_ways
async def test_an_action_of_an_erased_user_is_gone_and_stays_used(through_quart: bool) -> None:
    """A retry gets 410, whoever it is for; the question for its receipt says ERASED; nothing is counted."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        await bench.increment("ann", "a1")
        await bench.increment("ben", "b1")
        erase(bench, "ann")
        for user in ("ann", "ben"):
            reply = await bench.increment(user, "a1")
            assert (reply.status, reply.code) == (410, "ERASED")
            assert reply.details == {"field": "actionId", "actionId": "a1", "seq": 2}
        answer = (await bench.ask("GET", "/actions/a1", token=READER)).json
        assert (answer["seq"], answer["receipt"], answer["receiptStatus"]) == (2, None, "ERASED")
        assert (await bench.ask("GET", "/scores/ann", token=READER)).status == 404
        entries = (await bench.ask("GET", "/scoreboard/top")).json["entries"]
        assert entries == [{"userId": "ben", "score": 10, "rank": 1}]
        assert (await bench.increment("ben", "b1")).json["applied"] is False
        new = await bench.increment("ann", "a2")
        assert (new.status, new.json["newScore"]) == (200, 10), "a new user of this id"


async def test_corrections_leave_an_erased_user_alone() -> None:
    """An earlier one no longer names the user, and a later one changes only the others, from the rewritten log."""
    async with open_bench() as bench:
        await bench.log_boards()
        for user, action in (("ann", "a1"), ("ann", "a2"), ("ben", "b1"), ("ben", "b2")):
            await bench.increment(user, action)
        assert (await reverse(bench, "first", actionIds=["a1", "b1"])).status == 200
        assert (await bench.ask("GET", "/reversals/first", token=READER)).json["holding"] == 2
        erase(bench, "ann")
        change = Forgetting({"ann": [(bench.scoreboard.seq, "\x001")]})
        bench.log.events[:] = [change.event(event) for event in bench.log.events]
        told = (await bench.ask("GET", "/reversals/first", token=READER)).json
        [changed] = told["changes"]
        assert [user["userId"] for user in changed["users"]] == ["ben"]
        assert (told["actions"], told["holding"]) == (2, 1), "nothing lets the other one count again"
        alone = await reverse(bench, "second", actionIds=["a2"])
        assert (alone.status, alone.code) == (409, "CONFLICT")
        both = await reverse(bench, "third", caller="backend")
        assert (both.status, both.json["users"]) == (200, 1)
        assert (await bench.ask("GET", "/scoreboard/top")).json["entries"] == []
