"""The queue of reviews over HTTP: who is on it, page by page, and what is decided."""

from __future__ import annotations

from typing import Any

import pytest

from engine.board_rules import Rules
from tests.server.api.support import JUDGE, KEEPER, READER, REFEREE, WRITER, Bench, Reply, both_ways, open_bench

WATCHED = {"points": {"WIN": 10}, "watch": {"growth_per_minute": 15, "callers_per_user": 5}}


async def put(bench: Bench, *boards: str) -> None:
    """Make watched boards."""
    for board in boards:
        assert (await bench.ask("PUT", f"/boards/{board}", WATCHED, token=KEEPER)).status == 201


async def win(bench: Bench, user: str, action: str, board: str = "cup") -> Reply:
    """Give a user points."""
    body = {"userId": user, "actionId": action, "boardId": board, "reason": "WIN"}
    return await bench.ask("POST", "/scores/increment", body, token=WRITER)


async def flag(bench: Bench, user: str, board: str = "cup") -> str:
    """Give a user more points than a minute may have; give the id of the review."""
    await win(bench, user, f"{board} {user} 1", board)
    return f"{(await win(bench, user, f'{board} {user} 2', board)).json['seq']}-0"


async def queue(bench: Bench, query: str = "") -> dict[str, Any]:
    """Read the queue."""
    reply = await bench.ask("GET", f"/reviews{query}", token=JUDGE)
    assert reply.status == 200, reply
    return dict(reply.json)


@both_ways
async def test_a_flagged_user_is_on_the_queue_until_somebody_decides(through_quart: bool) -> None:
    """The score stays as it is, and the review says what was found, and later who decided, when and why."""
    async with open_bench(rules=Rules({}), through_quart=through_quart) as bench:
        await put(bench, "cup")
        review_id = await flag(bench, "ann")
        [review] = (await queue(bench))["reviews"]
        assert (review["reviewId"], review["userId"], review["rule"]) == (review_id, "ann", "growth_per_minute")
        assert (review["value"], review["limit"], review["score"], review["state"]) == (20, 15, 20, "open")
        assert (await bench.ask("GET", "/scores/ann?boardId=cup")).json["score"] == 20
        body = {"decision": "accept", "note": "a good day"}
        decided = (await bench.ask("POST", f"/reviews/{review_id}", body, token=JUDGE)).json
        assert decided["applied"] is True
        told = {name: decided["review"][name] for name in ("state", "decidedBy", "note", "decidedSeq")}
        assert told == {"state": "accepted", "decidedBy": "judge", "note": "a good day", "decidedSeq": decided["seq"]}
        again = (await bench.ask("POST", f"/reviews/{review_id}", {"decision": "accept"}, token=JUDGE)).json
        assert again == {**decided, "applied": False}
        assert (await queue(bench))["reviews"] == []
        assert (await queue(bench, "?state=accepted"))["reviews"] == [decided["review"]]
        assert (await bench.ask("GET", f"/reviews/{review_id}", token=JUDGE)).json["review"] == decided["review"]


async def test_points_are_taken_back_and_the_review_names_the_reversal() -> None:
    """A decision follows a reversal that was made before. Afterwards nobody can accept it."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench, "cup")
        path = f"/reviews/{await flag(bench, 'ann')}"
        reverse = {"decision": "reverse", "reversalId": "dispute-1"}
        early = await bench.ask("POST", path, {"decision": "reverse", "reversalId": "cup ann 1"}, token=JUDGE)
        assert (early.status, early.json["error"]["details"]["field"]) == (409, "reversalId")
        asked = {"reversalId": "dispute-1", "reason": "a bot", "actionIds": ["cup ann 1", "cup ann 2"]}
        assert (await bench.ask("POST", "/reversals", asked, token=REFEREE)).status == 200
        decided = (await bench.ask("POST", path, reverse, token=JUDGE)).json
        assert (decided["review"]["state"], decided["review"]["reversalId"]) == ("reversed", "dispute-1")
        again = await bench.ask("POST", path, reverse, token=JUDGE)
        assert (again.status, again.json["applied"]) == (200, False)
        unnamed = await bench.ask("POST", path, {"decision": "reverse"}, token=JUDGE)
        assert (unnamed.status, unnamed.json["applied"]) == (200, False)
        for more in ({}, {"preview": True}):
            other = await bench.ask("POST", path, {**reverse, "reversalId": "dispute-2", **more}, token=JUDGE)
            assert (other.status, other.json["error"]["details"]["field"]) == (409, "reversalId")
            assert "by the reversal 'dispute-1'" in other.json["error"]["message"]
        late = await bench.ask("POST", path, {"decision": "accept"}, token=JUDGE)
        assert (late.status, late.json["error"]["details"]["state"]) == (409, "reversed")


async def test_the_queue_is_read_page_by_page_the_oldest_first() -> None:
    """By state and board; a review that is decided meanwhile makes no gap."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench, "cup", "fair")
        ids = [await flag(bench, user, board) for user in ("ann", "ben", "cid") for board in ("cup", "fair")]
        first = await queue(bench, "?limit=2")
        assert [each["reviewId"] for each in first["reviews"]] == ids[:2]
        assert (first["open"], first["passedOver"], first["nextCursor"]) == (6, 0, ids[1])
        await bench.ask("POST", f"/reviews/{ids[1]}", {"decision": "accept"}, token=JUDGE)
        second = await queue(bench, f"?limit=4&cursor={first['nextCursor']}")
        assert ([each["reviewId"] for each in second["reviews"]], second["nextCursor"]) == (ids[2:], None)
        of_fair = await queue(bench, "?boardId=fair&state=all")
        assert [each["reviewId"] for each in of_fair["reviews"]] == ids[1::2]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field", "says"),
    [
        ("GET", "/reviews?state=shut", None, 400, "state", "open, accepted, reversed, all"),
        ("GET", "/reviews?cursor=5", None, 400, "cursor", "nextCursor"),
        ("GET", "/reviews?limit=0", None, 400, "limit", "from 1 to"),
        ("GET", "/reviews?boardId=", None, 400, "boardId", "empty"),
        ("GET", "/reviews?boardId=none", None, 400, "boardId", "no such board"),
        ("GET", "/reviews?user=ann", None, 400, "user", "Unknown parameter"),
        ("GET", "/reviews/1-0", None, 404, "reviewId", "no review"),
        ("POST", "/reviews/1-0", {"decision": "accept"}, 404, "reviewId", "no review"),
        ("POST", "/reviews/1-0", {"decision": "reverse"}, 404, "reviewId", "no review"),
        ("POST", "/reviews/1-0", {"decision": "accept", "preview": 1}, 400, "preview", "must be"),
        ("POST", "/reviews/1-0", {"decision": "reverse", "reversalId": ""}, 400, "reversalId", "empty"),
        ("POST", "/reviews/1-0", {"decision": "accept", "reversalId": "r"}, 400, "reversalId", "not with accept"),
        ("POST", "/reviews/1-0", {"decision": "perhaps"}, 400, "decision", "accept or reverse"),
        ("POST", "/reviews/1-0", {"decision": 5}, 400, "decision", "must be a string"),
        ("POST", "/reviews/1-0", {}, 400, "decision", "is missing"),
        ("POST", "/reviews/1-0", {"decision": "accept", "note": "x" * 501}, 400, "note", "at most 500"),
        ("POST", "/reviews/1-0", {"decision": "accept", "note": "a\nb"}, 400, "note", "control characters"),
        ("POST", "/reviews/1-0", {"decision": "accept", "why": "x"}, 400, "why", "Unknown field why"),
    ],
)
async def test_a_fault_names_its_field(method: str, path: str, body: Any, status: int, field: str, says: str) -> None:
    """And says what is allowed."""
    async with open_bench() as bench:
        reply = await bench.ask(method, path, body, token=JUDGE)
        assert reply.status == status, reply
        assert reply.json["error"]["details"]["field"] == field
        assert says in reply.json["error"]["message"]


async def test_the_queue_is_for_those_who_decide() -> None:
    """A token that may write or read scores is not enough, not even where reads are public."""
    async with open_bench() as bench:
        for token, status in ((None, 401), (WRITER, 403), (KEEPER, 403)):
            assert (await bench.ask("GET", "/reviews", token=token)).status == status
            body = {"decision": "accept"}
            assert (await bench.ask("POST", "/reviews/1-0", body, token=token)).status == status


async def test_metrics_count_flags_and_what_waits() -> None:
    """By rule, and the open ones."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench, "cup")
        first = await flag(bench, "ann")
        await flag(bench, "ben")
        await bench.ask("POST", f"/reviews/{first}", {"decision": "accept"}, token=JUDGE)
        told = (await bench.ask("GET", "/metrics")).body.decode()
        assert "scoreboard_open_reviews 1.0" in told
        assert 'scoreboard_review_flags{rule="growth_per_minute"} 2.0' in told
        assert "scoreboard_reviews_passed_over 0.0" in told


async def test_a_frozen_board_tells_a_person_of_no_review() -> None:
    """A review has scores of the present. Who may see that sees the review too."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench, "cup")
        await flag(bench, "ann")
        own = f"{WRITER} ann"
        assert len((await bench.ask("GET", "/users/ann/data", token=own)).json["reviews"]) == 1
        await bench.ask("POST", "/boards/cup/freeze", token=KEEPER)
        for token, count in ((own, 0), (READER, 1)):
            assert len((await bench.ask("GET", "/users/ann/data", token=token)).json["reviews"]) == count
