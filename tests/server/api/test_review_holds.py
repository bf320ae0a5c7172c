"""A board that holds, over HTTP: what answers say, and what decisions do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.board_rules import Rules
from server.api.recounts import Recounts
from server.http.messages import MSGPACK
from tests.server.api.support import JUDGE, KEEPER, READER, REFEREE, WRITER, Bench, Reply, both_ways, open_bench
from tests.server.api.test_reviews import queue, win

HOLDING = {"points": {"WIN": 10}, "feeds": ["all"], "watch": {"growth_per_minute": 15, "action": "hold"}}


async def held(bench: Bench) -> tuple[str, Reply]:
    """Let ann be flagged by her second win, and win again; give the review and the answer to that."""
    assert (await bench.ask("PUT", "/boards/all", {"points": {"WIN": 1}}, token=KEEPER)).status == 201
    assert (await bench.ask("PUT", "/boards/cup", HOLDING, token=KEEPER)).status == 201
    await win(bench, "ann", "a1")
    seq = (await win(bench, "ann", "a2")).json["seq"]
    return f"{seq}-0", await win(bench, "ann", "a3")


async def decide(bench: Bench, review_id: str, decision: str, **more: object) -> Reply:
    """Decide a review."""
    return await bench.ask("POST", f"/reviews/{review_id}", {"decision": decision, **more}, token=JUDGE)


async def score(bench: Bench, board: str = "cup") -> int | None:
    """Read what the board shows of ann."""
    reply = await bench.ask("GET", f"/scores/ann?boardId={board}")
    return reply.json["score"] if reply.status == 200 else None


@both_ways
async def test_the_answer_says_that_an_action_is_held(through_quart: bool) -> None:
    """So do its repetition, the receipt and the history. Other answers have no such field."""
    async with open_bench(rules=Rules({}), through_quart=through_quart) as bench:
        review_id, answer = await held(bench)
        assert (answer.json["held"], answer.json["delta"], answer.json["newScore"]) == (True, 0, 20)
        again = (await win(bench, "ann", "a3")).json
        assert (again["held"], again["applied"]) == (True, False)
        assert "held" not in (await win(bench, "ann", "a2")).json
        receipt = (await bench.ask("GET", "/actions/a3", token=READER)).json["receipt"]
        assert (receipt["held"], receipt["delta"], receipt["value"]) == (True, 0, 10)
        assert "held" not in receipt["fed"][0]
        assert (await score(bench), await score(bench, "all")) == (20, 3)
        [newest, *_] = (await bench.ask("GET", "/scores/ann/history", token=READER)).json["entries"]
        assert (newest["actionId"], newest["held"]) == ("a3", True)
        [review] = (await queue(bench))["reviews"]
        assert (review["reviewId"], review["held"]) == (review_id, 1)
        assert "scoreboard_held_actions 1.0" in (await bench.ask("GET", "/metrics")).body.decode()


async def test_a_batch_says_which_of_its_actions_are_held() -> None:
    """In JSON and in MessagePack; the hold begins within the batch."""
    async with open_bench(rules=Rules({})) as bench:
        await held(bench)
        for kind in ("application/json", MSGPACK):
            items = [
                {"userId": user, "actionId": f"{kind} {at}", "boardId": "cup", "reason": "WIN"}
                for at, user in enumerate((kind, kind, kind, "zoe"))
            ]
            if kind == MSGPACK:
                headers = {"content-type": MSGPACK}
                packed = msgspec.msgpack.encode(items)
                reply = await bench.ask("POST", "/scores/increment/batch", raw=packed, token=WRITER, headers=headers)
                told: list[dict[str, Any]] = msgspec.msgpack.decode(reply.body)
            else:
                told = (await bench.ask("POST", "/scores/increment/batch", items, token=WRITER)).json
            assert [each.get("held") for each in told] == [None, None, True, None]


@both_ways
async def test_accepted_actions_count(through_quart: bool) -> None:
    """The answer says what changed, the history has the decision, and later actions count at once."""
    async with open_bench(rules=Rules({}), through_quart=through_quart) as bench:
        review_id, _ = await held(bench)
        preview = (await decide(bench, review_id, "accept", preview=True)).json
        assert (preview["applied"], preview["preview"], preview["review"]["state"]) == (False, True, "open")
        decided = (await decide(bench, review_id, "accept", note="a good day")).json
        assert (decided["applied"], decided["actions"], decided["forgotten"]) == (True, 1, 0)
        [change] = decided["changes"]
        assert change == preview["changes"][0]
        assert change["boardId"] == "cup"
        assert change["users"] == [{"userId": "ann", "oldScore": 20, "newScore": 30, "delta": 10}]
        assert [row["score"] for row in change["top"]] == [30]
        assert await score(bench) == 30
        receipt = (await bench.ask("GET", "/actions/a3", token=READER)).json["receipt"]
        assert "held" not in receipt
        [newest, *_] = (await bench.ask("GET", "/scores/ann/history", token=READER)).json["entries"]
        assert (newest["type"], newest["reviewId"], newest["reason"]) == ("review", review_id, "a good day")
        assert newest["scores"] == [{"boardId": "cup", "score": 30}]
        assert (await win(bench, "ann", "a4")).json["newScore"] == 40


@both_ways
async def test_a_review_is_reversed_by_itself(through_quart: bool) -> None:
    """With the scope for reviews alone: on all boards, under an id that can be looked up and taken back."""
    async with open_bench(rules=Rules({}), through_quart=through_quart) as bench:
        review_id, _ = await held(bench)
        told = (await decide(bench, review_id, "reverse", preview=True)).json
        decided = (await decide(bench, review_id, "reverse", note="a bot")).json
        assert decided["changes"] == told["changes"]
        assert (decided["actions"], decided["review"]["reversalId"]) == (3, f"review-{review_id}")
        assert (await score(bench), await score(bench, "all")) == (None, None)
        reversal = (await bench.ask("GET", f"/reversals/review-{review_id}", token=REFEREE)).json
        assert (reversal["reason"], reversal["caller"], reversal["holding"]) == ("a bot", "judge", 3)
        again = (await decide(bench, review_id, "reverse")).json
        assert (again["applied"], again["seq"]) == (False, decided["seq"])
        body = {"reversalId": "sorry", "reason": "was no bot", "actionIds": [f"review-{review_id}"]}
        assert (await bench.ask("POST", "/reversals", body, token=REFEREE)).status == 200
        assert (await score(bench), await score(bench, "all")) == (30, 3)


async def test_a_reversal_gets_the_id_that_is_asked_for() -> None:
    """It is no id of an action. A reversal that leaves something held is refused, and says what to send."""
    async with open_bench(rules=Rules({})) as bench:
        review_id, _ = await held(bench)
        taken = await decide(bench, review_id, "reverse", reversalId="a1")
        assert (taken.status, taken.json["error"]["details"]["field"]) == (409, "reversalId")
        body = {"reversalId": "early", "reason": "a bot", "actionIds": ["a1"]}
        assert (await bench.ask("POST", "/reversals", body, token=REFEREE)).status == 200
        left = await decide(bench, review_id, "reverse", reversalId="early")
        assert left.status == 409
        assert "leave reversalId out" in left.json["error"]["message"]
        decided = (await decide(bench, review_id, "reverse", reversalId="dispute-9")).json
        assert (decided["actions"], decided["review"]["reversalId"]) == (2, "dispute-9")
        asked = {"reversalId": "dispute-9", "reason": "x", "actionIds": ["a2"]}
        assert (await bench.ask("POST", "/reversals", asked, token=REFEREE)).status == 409


@pytest.mark.parametrize(("decision", "expected"), [("accept", 40), ("reverse", None)])
async def test_actions_that_come_meanwhile_are_decided_too(
    decision: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the log is read increments go on: what is held then is neither lost nor left held."""
    async with open_bench(rules=Rules({})) as bench:
        review_id, _ = await held(bench)
        come_after(monkeypatch, bench, ["cup"])
        decided = (await decide(bench, review_id, decision)).json
        assert decided["actions"] == (2 if decision == "accept" else 4)
        assert await score(bench) == expected
        assert "scoreboard_held_actions 0.0" in (await bench.ask("GET", "/metrics")).body.decode()


async def test_an_action_on_a_board_that_was_not_looked_at_makes_it_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once is no trouble. If it does not end, the answer is 503, and nothing was changed."""
    async with open_bench(rules=Rules({})) as bench:
        review_id, _ = await held(bench)
        boards = [f"mini-{number}" for number in range(4)]
        for board in boards:
            rules = {"points": {"WIN": 10}, "feeds": ["cup"]}
            assert (await bench.ask("PUT", f"/boards/{board}", rules, token=KEEPER)).status == 201
        come_after(monkeypatch, bench, boards[:3])
        busy = await decide(bench, review_id, "reverse")
        assert (busy.status, busy.json["error"]["code"]) == (503, "OVERLOADED")
        assert await score(bench) == 20
        come_after(monkeypatch, bench, boards[3:])
        assert (await decide(bench, review_id, "reverse")).json["actions"] == 7
        assert await score(bench) is None


def come_after(monkeypatch: pytest.MonkeyPatch, bench: Bench, boards: list[str]) -> None:
    """Let ann win once on each of these boards, each time after the log was read for a decision."""
    real, left = Recounts.of, list(boards)

    async def read(self: Recounts, *args: Any, **more: Any) -> Any:
        found = await real(self, *args, **more)
        if left:
            board = left.pop(0)
            assert (await win(bench, "ann", f"late on {board}", board)).status == 200
        return found

    monkeypatch.setattr(Recounts, "of", read)


@pytest.mark.parametrize("decision", ["accept", "reverse"])
async def test_a_decision_without_its_log_changes_nothing(decision: str) -> None:
    """What the log no longer has can't be counted: 409, and the hold goes on."""
    async with open_bench(rules=Rules({})) as bench:
        review_id, answer = await held(bench)
        bench.log.first_seq = answer.json["seq"] + 1
        refused = await decide(bench, review_id, decision)
        assert refused.status == 409, refused
        assert "begins at seq" in refused.json["error"]["message"]
        assert (await queue(bench))["reviews"][0]["held"] == 1


async def test_a_frozen_board_tells_others_nothing_of_a_hold() -> None:
    """The receipt is hidden as a whole; a token that reads scores sees it."""
    async with open_bench(rules=Rules({})) as bench:
        await held(bench)
        assert (await bench.ask("POST", "/boards/cup/freeze", {}, token=KEEPER)).status == 200
        assert (await win(bench, "ann", "a4")).json["held"] is True
        public = (await bench.ask("GET", "/actions/a4", token="Bearer other scores:write")).json
        assert (public["receipt"], public["receiptStatus"]) == (None, "FROZEN")
        assert (await bench.ask("GET", "/actions/a4", token=READER)).json["receipt"]["held"] is True
