"""Increments, batches and users: what is answered, what is refused and what reaches the log."""

from __future__ import annotations

import msgspec
import pytest

from engine.board_rules import rules_of_points
from engine.limits import SCORE_MAX
from tests.server.api.support import READER, REGISTRAR, WRITER, both_ways, open_bench

BATCH = "/scores/increment/batch"
ANN_ONLY = "Bearer phone scores:write,users:write ann"


# One increment


@both_ways
async def test_an_increment_is_answered_with_exactly_its_receipt(through_quart: bool) -> None:
    """The fields of the interface, no more and no less, with the points from the catalogue."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("bob", "b1")
        reply = await bench.increment("ann", "a1", reason="WON")
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.json == {
            "userId": "ann",
            "newScore": 100,
            "delta": 100,
            "applied": True,
            "actionId": "a1",
            "boardId": "main",
            "epoch": 1,
            "seq": 2,
            "rank": 1,
            "previousRank": None,
        }
        assert bench.logged() == [("b1", "bob", 10), ("a1", "ann", 100)]


@both_ways
async def test_an_action_sent_again_is_answered_but_not_applied(through_quart: bool) -> None:
    """A retry gets 200 with `applied` false, no points, the first event's seq and the score of now."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.increment("ann", "a2")
        reply = await bench.increment("ann", "a1")
        assert reply.status == 200
        expected = {"applied": False, "delta": 0, "newScore": 20, "seq": 1, "rank": 1, "previousRank": 1}
        assert {name: reply.json[name] for name in expected} == expected
        assert len(bench.logged()) == 2


@both_ways
@pytest.mark.parametrize("other", [{"userId": "bob"}, {"boardId": "weekly"}, {"reason": "WON"}])
async def test_an_action_that_means_something_else_is_a_conflict(other: dict[str, str], through_quart: bool) -> None:
    """The same actionId for another user, board or reason: 409, and nothing is changed."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        reply = await bench.increment(**{"user_id": "ann", "action_id": "a1", **other})
        assert (reply.status, reply.code) == (409, "CONFLICT")
        assert reply.details["field"] == "actionId"
        assert len(bench.logged()) == 1


@both_ways
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"delta": 1000}, "delta"),
        ({"score": 1000}, "score"),
        ({"userId": 5}, "userId"),
        ({"userId": True}, "userId"),
        ({"userId": None}, "userId"),
        ({"actionId": ["a"]}, "actionId"),
        ({"reason": 5}, "reason"),
        ({"boardId": {}}, "boardId"),
        ({"userId": ""}, "userId"),
        ({"actionId": "x" * 129}, "actionId"),
        ({"userId": "a\nb"}, "userId"),
        ({"reason": "\x1b[2J"}, "reason"),
        ({"reason": "NO_SUCH_REASON"}, "reason"),
        ({"boardId": "no-such-board"}, "boardId"),
    ],
)
async def test_a_field_that_is_not_as_it_must_be_is_named(
    change: dict[str, object], field: str, through_quart: bool
) -> None:
    """400 INVALID_REQUEST with the field's name in `details`; nothing reaches the log."""
    async with open_bench(through_quart=through_quart) as bench:
        body = {"userId": "ann", "actionId": "a1", **change}
        reply = await bench.ask("POST", "/scores/increment", body, token=WRITER)
        assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", field)
        assert bench.log.events == []


@both_ways
@pytest.mark.parametrize("missing", ["userId", "actionId"])
async def test_a_field_that_is_missing_is_named(missing: str, through_quart: bool) -> None:
    """UserId and actionId must be there."""
    async with open_bench(through_quart=through_quart) as bench:
        body = {name: value for name, value in {"userId": "ann", "actionId": "a1"}.items() if name != missing}
        reply = await bench.ask("POST", "/scores/increment", body, token=WRITER)
        assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", missing)


@both_ways
@pytest.mark.parametrize(
    "raw", [b"", b"{", b"NaN", b'{"userId":NaN}', b"[]", b'"ann"', b"\xff\xfe", b"[" * 12_000, b"{} {}"]
)
async def test_a_body_that_is_no_object_of_json_is_refused(raw: bytes, through_quart: bool) -> None:
    """Broken, nested without end, of another kind: 400, and the body is what is named."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("POST", "/scores/increment", raw=raw, token=WRITER)
        assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
        assert reply.details["field"] in ("body", "userId")


@both_ways
async def test_the_longest_ids_and_any_script_are_fine(through_quart: bool) -> None:
    """128 characters, not bytes; whatever people write their names in."""
    async with open_bench(through_quart=through_quart) as bench:
        user = "名" * 128
        reply = await bench.increment(user, "🎯/ü")
        assert (reply.status, reply.json["userId"], reply.json["actionId"]) == (200, user, "🎯/ü")


@both_ways
async def test_the_content_type_may_be_missing_but_not_wrong(through_quart: bool) -> None:
    """JSON in UTF-8 under its own name, without one or under curl's; nothing else, and nothing compressed."""
    async with open_bench(through_quart=through_quart) as bench:
        body = {"userId": "ann", "actionId": "a1"}
        for good in ("application/json", "Application/JSON; charset=UTF-8", "application/x-www-form-urlencoded"):
            reply = await bench.ask("POST", "/scores/increment", body, token=WRITER, headers={"content-type": good})
            assert reply.status == 200
        for name, bad in (
            ("Content-Type", "text/plain"),
            ("Content-Type", "application/json; charset=latin-1"),
            ("Content-Type", "multipart/form-data"),
            ("Content-Encoding", "gzip"),
        ):
            reply = await bench.ask("POST", "/scores/increment", body, token=WRITER, headers={name.lower(): bad})
            assert (reply.status, reply.code, reply.details) == (400, "INVALID_REQUEST", {"field": name})


@both_ways
async def test_a_token_of_one_user_works_for_that_user_alone(through_quart: bool) -> None:
    """The claim in the token decides, in a single increment, in a batch and for changing a user."""
    async with open_bench(through_quart=through_quart) as bench:
        own = {"userId": "ann", "actionId": "a1"}
        other = {"userId": "bob", "actionId": "b1"}
        assert (await bench.ask("POST", "/scores/increment", own, token=ANN_ONLY)).status == 200
        reply = await bench.ask("POST", "/scores/increment", other, token=ANN_ONLY)
        assert (reply.status, reply.code, reply.details) == (403, "UNAUTHORIZED", {"field": "userId"})
        reply = await bench.ask("POST", BATCH, [own, other], token=ANN_ONLY)
        assert [item["status"] for item in reply.json] == [200, 403]
        assert (await bench.ask("PUT", "/users/bob", {"active": False}, token=ANN_ONLY)).status == 403
        assert (await bench.ask("PUT", "/users/ann", {"active": True}, token=ANN_ONLY)).status == 200
        assert bench.logged() == [("a1", "ann", 10)]


@both_ways
async def test_the_caller_is_in_the_log(through_quart: bool) -> None:
    """Every event says whose token it was."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.ask("PUT", "/users/ann", {"active": True}, token=REGISTRAR)
        assert [getattr(event, "caller", None) for event in bench.log.events] == ["backend", "registry"]


async def test_a_score_does_not_pass_the_largest_exact_integer() -> None:
    """Beyond 2^53 - 1 JavaScript could not tell two scores apart: refused."""
    async with open_bench(rules=rules_of_points({"main": {"ACTION_COMPLETED": SCORE_MAX}})) as bench:
        assert (await bench.increment("ann", "a1")).json["newScore"] == SCORE_MAX
        reply = await bench.increment("ann", "a2")
        assert (reply.status, reply.details["field"]) == (400, "userId")


# Batches


@both_ways
async def test_each_item_of_a_batch_has_its_own_answer(through_quart: bool) -> None:
    """Good ones are applied, bad ones say what is wrong, in the order in which they were sent."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "old")
        items = [
            {"userId": "ann", "actionId": "a1"},
            {"userId": "ann", "actionId": "a2", "delta": 5},
            7,
            {"userId": "bob", "actionId": "b1", "boardId": "weekly"},
            {"userId": "bob", "actionId": "a1"},
            {"userId": "", "actionId": "x"},
            {"userId": "ann", "actionId": "old"},
            {"userId": "ann", "actionId": "a3", "reason": "NONSENSE"},
            None,
        ]
        reply = await bench.ask("POST", BATCH, items, token=WRITER)
        assert reply.status == 200
        assert [item["status"] for item in reply.json] == [200, 400, 400, 200, 409, 400, 200, 400, 400]
        assert [item.get("applied") for item in reply.json] == [True, None, None, True, None, None, False, None, None]
        fields = [item["error"]["details"]["field"] for item in reply.json if "error" in item]
        assert fields == ["delta", "body", "actionId", "userId", "reason", "body"]
        assert bench.logged()[1:] == [("a1", "ann", 10), ("b1", "bob", 1)]
        assert len(bench.applied) == 2, "the whole batch is one frame, and one fsync"


@both_ways
async def test_an_item_of_a_batch_says_what_a_single_request_would(through_quart: bool) -> None:
    """Receipt or error, an item has just the fields of the single answer, and its status."""
    bodies: list[dict[str, object]] = [
        {"userId": "ann", "actionId": "a1"},
        {"userId": "ann", "actionId": "a1"},
        {"userId": "bob", "actionId": "a1"},
        {"userId": "ann", "actionId": 5},
        {"userId": "ann", "actionId": "a2", "reason": "NONSENSE"},
    ]
    async with open_bench(through_quart=through_quart) as singly, open_bench(through_quart=through_quart) as together:
        expected = []
        for body in bodies:
            reply = await singly.ask("POST", "/scores/increment", body, token=WRITER)
            expected.append({"status": reply.status, **reply.json})
        assert (await together.ask("POST", BATCH, bodies, token=WRITER)).json == expected
        assert singly.logged() == together.logged()


@both_ways
async def test_a_packed_batch_is_answered_packed(through_quart: bool) -> None:
    """MessagePack in, MessagePack out, with the very values that JSON has; a single increment is JSON only."""
    items: list[object] = [
        {"userId": "ann", "actionId": "a1"},
        {"userId": "zoë", "actionId": "z1", "boardId": "weekly"},
        {"userId": "ann", "actionId": "a2", "delta": 5},
        7,
        {"userId": "bob", "actionId": "a1"},
    ]
    packed = {"content-type": "application/msgpack"}
    async with open_bench(through_quart=through_quart) as plain, open_bench(through_quart=through_quart) as bench:
        expected = await plain.ask("POST", BATCH, items, token=WRITER)
        reply = await bench.ask("POST", BATCH, raw=msgspec.msgpack.encode(items), token=WRITER, headers=packed)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/msgpack")
        assert msgspec.msgpack.decode(reply.body) == expected.json
        assert bench.logged() == plain.logged()
        reply = await bench.ask("POST", BATCH, raw=b"\xc1", token=WRITER, headers=packed)
        assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "body")
        assert reply.headers["content-type"] == "application/json"
        single = msgspec.msgpack.encode(items[0])
        reply = await bench.ask("POST", "/scores/increment", raw=single, token=WRITER, headers=packed)
        assert (reply.status, reply.details["field"]) == (400, "Content-Type")


@both_ways
@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"5", b"[1,", b"[" * 12_000, b"null"])
async def test_a_batch_that_is_none_is_refused_as_a_whole(raw: bytes, through_quart: bool) -> None:
    """Not an array, not JSON, or empty: one ordinary error."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("POST", BATCH, raw=raw, token=WRITER)
        assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "body")


@both_ways
async def test_a_batch_has_at_most_a_thousand_items(through_quart: bool) -> None:
    """A thousand are taken, one more is not; that they are bad items makes no difference."""
    async with open_bench(through_quart=through_quart, per_minute=(60_000, 10_000)) as bench:
        items: list[object] = [{"userId": "ann", "actionId": f"a{number}"} for number in range(1_000)]
        reply = await bench.ask("POST", BATCH, items, token=WRITER)
        assert [item["newScore"] for item in reply.json] == list(range(10, 10_010, 10))
        assert len(bench.applied) == 1
        for too_many in ([*items, items[0]], [7] * 1_001):
            reply = await bench.ask("POST", BATCH, too_many, token=WRITER)
            assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
            assert reply.details == {"field": "body", "minimum": 1, "maximum": 1_000}


@both_ways
async def test_a_batch_of_bad_items_is_answered_without_the_actor(through_quart: bool) -> None:
    """There is nothing to submit, and nothing to wait for."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.actor.drain()
        reply = await bench.ask("POST", BATCH, [1, 2], token=WRITER)
        assert [item["status"] for item in reply.json] == [400, 400]


async def test_items_refused_are_counted_and_told_once_per_batch() -> None:
    """The metric counts each of them; the log has one line."""
    async with open_bench() as bench:
        await bench.ask("POST", BATCH, [1, 2, {"userId": "ann", "actionId": "a1"}], token=WRITER)
        assert bench.metrics.value("scoreboard_failures_total", code="INVALID_REQUEST") == 2
        [line] = bench.told("refused")
        assert (line["items"], line["caller"]) == ({"INVALID_REQUEST": 2}, "backend")


# Users


@both_ways
async def test_a_user_is_put_whole_or_in_part(through_quart: bool) -> None:
    """What is not named stays; saying the same again changes nothing, and says so."""
    async with open_bench(through_quart=through_quart) as bench:
        steps: list[tuple[dict[str, object], dict[str, object]]] = [
            ({"active": True}, {"displayName": None, "active": True, "applied": True, "seq": 1}),
            ({"displayName": "Ann"}, {"displayName": "Ann", "active": True, "applied": True, "seq": 2}),
            ({"active": False}, {"displayName": "Ann", "active": False, "applied": True, "seq": 3}),
            ({"active": False}, {"displayName": "Ann", "active": False, "applied": False, "seq": 3}),
        ]
        for body, expected in steps:
            reply = await bench.ask("PUT", "/users/ann", body, token=REGISTRAR)
            assert (reply.status, reply.json) == (200, {"userId": "ann", "epoch": 1, **expected})


@both_ways
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ([], "body"),
        ({"displayName": ""}, "displayName"),
        ({"displayName": 5}, "displayName"),
        ({"displayName": "x" * 129}, "displayName"),
        ({"displayName": "a\x00b"}, "displayName"),
        ({"active": "yes"}, "active"),
        ({"active": 1}, "active"),
        ({"active": None}, "body"),
        ({"userId": "ann"}, "userId"),
        ({"score": 5, "active": True}, "score"),
    ],
)
async def test_a_user_that_is_not_as_it_must_be_is_refused(body: object, field: str, through_quart: bool) -> None:
    """400 naming the field; a score can't be set here either."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("PUT", "/users/ann", body, token=REGISTRAR)
        assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", field)
        assert bench.log.events == []


@both_ways
async def test_an_inactive_user_is_off_the_board_and_comes_back_with_the_score(through_quart: bool) -> None:
    """Not to be incremented, no rank, in no row; active again, all is as before."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.ask("PUT", "/users/ann", {"active": False}, token=REGISTRAR)
        reply = await bench.increment("ann", "a2")
        assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "userId")
        assert "inactive" in reply.json["error"]["message"]
        assert (await bench.ask("GET", "/scoreboard/top")).json["entries"] == []
        assert (await bench.ask("GET", "/scores/ann", token=READER)).json["rank"] is None
        assert (await bench.increment("ann", "a1")).json["rank"] is None
        await bench.ask("PUT", "/users/ann", {"active": True}, token=REGISTRAR)
        assert (await bench.increment("ann", "a2")).json["newScore"] == 20


@both_ways
async def test_unknown_users_are_refused_where_they_must_be_registered(through_quart: bool) -> None:
    """With `require_registered` a user is put first."""
    rules = rules_of_points({"main": {"ACTION_COMPLETED": 10}}, require_registered=True)
    async with open_bench(through_quart=through_quart, rules=rules) as bench:
        reply = await bench.increment("ann", "a1")
        assert (reply.status, reply.details["field"]) == (400, "userId")
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        assert (await bench.increment("ann", "a1")).status == 200


@both_ways
async def test_an_id_in_a_path_may_be_any_text(through_quart: bool) -> None:
    """Percent-encoded UTF-8, slashes among it; what is no text or no id is refused by name."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("PUT", "/users/a%2Fb%20%C3%BC%2Faround", {"active": True}, token=REGISTRAR)
        assert (reply.status, reply.json["userId"]) == (200, "a/b ü/around")
        for bad in ("%FF", "%zz", "%", "%00", "x" * 129, ""):
            reply = await bench.ask("PUT", f"/users/{bad}", {"active": True}, token=REGISTRAR)
            assert (reply.status, reply.code, reply.details) == (400, "INVALID_REQUEST", {"field": "userId"})


async def test_a_read_token_changes_nothing() -> None:
    """Refused before the body is looked at, so a broken one makes no difference."""
    async with open_bench() as bench:
        for path in ("/scores/increment", BATCH):
            assert (await bench.ask("POST", path, raw=b"\xff", token=READER)).status == 403
        assert msgspec.json.decode((await bench.ask("GET", "/scoreboard/top")).body)["entries"] == []
