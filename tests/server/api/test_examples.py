"""The examples of the API's description: real answers, and in the shape that is described beside them."""

from __future__ import annotations

from typing import Any

import pytest

from engine.board_rules import Rules
from server.api import examples
from server.api.routes import ROUTES
from server.bounds import BODY_BYTES_MAX
from server.replication.followers import FollowerInfo
from server.role import State
from snapshots.promotion import Successor
from tests.server.api.support import ADMIN, ERASER, JUDGE, KEEPER, READER, REGISTRAR, WRITER, Bench, Reply, open_bench
from tests.server.api.test_openapi import DOCUMENT, faults, resolve

INCREMENT = "/scores/increment"


async def play(bench: Bench) -> dict[str, Reply]:
    """Play the story; give the answers by handler."""
    requests = examples.REQUESTS
    asked: list[tuple[str, str, str, Any, str | None]] = [
        ("put_user", "PUT", "/users/alice", requests["put_user"], REGISTRAR),
        ("increment", "POST", INCREMENT, requests["increment"], WRITER),
        ("increment_batch", "POST", f"{INCREMENT}/batch", requests["increment_batch"], WRITER),
        ("top", "GET", "/scoreboard/top", None, None),
        ("walk", "GET", "/scoreboard", None, None),
        ("query", "POST", "/scores/query", requests["query"], None),
        ("score", "GET", f"/scores/{examples.USER_ID}", None, None),
        ("around", "GET", f"/scores/{examples.USER_ID}/around", None, None),
        ("action", "GET", f"/actions/{examples.ACTION_ID}", None, READER),
        ("healthz", "GET", "/healthz", None, None),
        ("readyz", "GET", "/readyz", None, None),
    ]
    return {handler: await bench.ask(method, path, body, token=token) for handler, method, path, body, token in asked}


async def play_boards(bench: Bench) -> dict[str, Reply]:
    """Play its second part."""
    cup = f"/boards/{examples.BOARD_ID}"
    asked: list[tuple[str, str, str, Any, str | None]] = [
        ("put_board", "PUT", cup, examples.REQUESTS["put_board"], KEEPER),
        ("boards", "GET", "/boards", None, None),
        ("board", "GET", cup, None, READER),
        ("freeze_board", "POST", f"{cup}/freeze", examples.REQUESTS["freeze_board"], KEEPER),
        ("reveal_board", "POST", f"{cup}/reveal", examples.REQUESTS["reveal_board"], KEEPER),
        ("unfreeze_board", "POST", f"{cup}/unfreeze", None, KEEPER),
        ("reset_board", "POST", f"{cup}/reset", examples.REQUESTS["reset_board"], KEEPER),
        ("periods", "GET", f"{cup}/periods", None, None),
        ("close_board", "DELETE", cup, None, KEEPER),
    ]
    return {handler: await bench.ask(method, path, body, token=token) for handler, method, path, body, token in asked}


async def play_corrections(bench: Bench) -> dict[str, Reply]:
    """Play its last part."""
    referee = "Bearer referee scores:correct"
    body = examples.REQUESTS["reverse"]
    made = await bench.ask("POST", "/reversals", body, token=referee)
    return {
        "reverse": made,
        "reversal": await bench.ask("GET", f"/reversals/{body['reversalId']}", token=referee),
        "history": await bench.ask("GET", f"/scores/{examples.USER_ID}/history", token=READER),
        "user_data": await bench.ask("GET", f"/users/{examples.USER_ID}/data", token=READER),
    }


async def play_reviews(bench: Bench) -> dict[str, Reply]:
    """Play what comes after it."""
    fair = {"points": {"WIN": 10}, "watch": {"growth_per_minute": 5}}
    assert (await bench.ask("PUT", "/boards/fair", fair, token=KEEPER)).status == 201
    won = {"userId": "dora", "actionId": "quest-9-dora", "boardId": "fair", "reason": "WIN"}
    assert (await bench.ask("POST", INCREMENT, won, token=WRITER)).json["seq"] == 11
    review = f"/reviews/{examples.REVIEW_ID}"
    asked: list[tuple[str, str, str, Any]] = [
        ("reviews", "GET", "/reviews", None),
        ("review", "GET", review, None),
        ("decide_review", "POST", review, examples.REQUESTS["decide_review"]),
    ]
    return {handler: await bench.ask(method, path, body, token=JUDGE) for handler, method, path, body in asked}


async def play_imports(bench: Bench) -> dict[str, Reply]:
    """Play what comes last."""
    assert (await bench.ask("PUT", "/boards/classic", {"points": {"WIN": 10}}, token=KEEPER)).json["seq"] == 13
    path = "/boards/classic/imports"
    asked: list[tuple[str, str, str, Any]] = [
        ("import_rows", "POST", path, examples.REQUESTS["import_rows"]),
        ("imports", "GET", path, None),
        ("import", "GET", f"{path}/{examples.IMPORT_ID}", None),
    ]
    return {handler: await bench.ask(method, path, body, token=ADMIN) for handler, method, path, body in asked}


async def play_feeds(bench: Bench) -> dict[str, Reply]:
    """Read the board of the import as a contest."""
    contest = "/feeds/clics/contests/classic"
    paths = {
        "ctftime": "/feeds/ctftime.json?boardId=classic",
        "clics": "/feeds/clics",
        "clics_contests": "/feeds/clics/contests",
        "clics_contest": contest,
        **{f"clics_{name}": f"{contest}/{name}" for name in ("access", "teams", "state", "scoreboard")},
    }
    return {handler: await bench.ask("GET", path) for handler, path in paths.items()}


async def test_the_examples_are_what_a_leader_answers() -> None:
    """Every answer of the story, field by field, in order. The version of the tz database is the machine's."""
    async with open_bench() as bench:
        replies = await play(bench)
        linked = FollowerInfo("10.0.0.7", None, bench.scoreboard.epoch, bench.scoreboard.seq, True, bench.clock_ms())
        bench.followers.append(linked)
        replies["followers"] = await bench.ask("GET", "/replication/followers", token=ADMIN)
        replies["quorum"] = await bench.ask("GET", "/quorum", token=ADMIN)
        replies["step_down"] = await bench.ask("POST", "/quorum/step-down", token=ADMIN)
        replies["viewers"] = await bench.ask("GET", "/viewers?boardId=main")
        bench.scoreboard.rules = Rules({})  # or its boards would have to be in the log before others
        replies |= await play_boards(bench)
        replies |= await play_corrections(bench)
        replies |= await play_reviews(bench)
        replies |= await play_imports(bench)
        replies |= await play_feeds(bench)
        replies["webhooks"] = await bench.ask("GET", "/webhooks", token=ADMIN)
        replies["enable_webhook"] = await bench.ask("POST", "/webhooks/shop/enable", token=ADMIN)
        replies["erase_user"] = await bench.ask("DELETE", "/users/dora", token=ERASER)
        replies["live_flag"] = await bench.ask("GET", "/flags/live", token=ADMIN)
        off = examples.REQUESTS["put_live_flag"]
        replies["put_live_flag"] = await bench.ask("PUT", "/flags/live", off, token=ADMIN)
    statuses = {**dict.fromkeys(replies, 200), "put_board": 201}
    assert {handler: reply.status for handler, reply in replies.items()} == statuses
    for handler, reply in replies.items():
        told = reply.json
        if "tzdata" in told:
            told["tzdata"] = examples.ANSWERS[handler]["tzdata"]
        assert told == examples.ANSWERS[handler], handler
    assert set(replies) | {"promote"} == set(examples.ANSWERS), "a test of promotion has two nodes"


async def test_the_errors_are_what_a_leader_answers() -> None:
    """Those of a bad request, a bad token, an unknown user, a conflict, a limit, a leader that was replaced."""
    increment = examples.REQUESTS["increment"]
    async with open_bench(per_minute=(10_000, 600)) as bench:
        await play(bench)
        for status, method, path, body, token in (
            (400, "POST", INCREMENT, {"userId": "alice"}, WRITER),
            (401, "POST", INCREMENT, increment, None),
            (403, "POST", INCREMENT, increment, READER),
            (404, "GET", "/scores/nobody", None, None),
            (409, "POST", INCREMENT, {**increment, "userId": "bob"}, WRITER),
            (426, "GET", "/ws/scoreboard", None, None),
        ):
            reply = await bench.ask(method, path, body, token=token)
            assert (reply.status, reply.json) == (status, examples.ERRORS[status])
        items = [{"userId": "alice", "actionId": f"limit-{number}"} for number in range(600)]
        await bench.ask("POST", f"{INCREMENT}/batch", items, token=WRITER)
        reply = await bench.ask("POST", INCREMENT, {"userId": "alice", "actionId": "one-more"}, token=WRITER)
        assert (reply.status, reply.json) == (429, examples.ERRORS[429])
        await bench.actor.drain()
        reply = await bench.ask("POST", INCREMENT, {"userId": "bob", "actionId": "too-late"}, token=WRITER)
        assert (reply.status, reply.json) == (503, examples.ERRORS[503])
        bench.role.become(State.DEPOSED, successor=Successor(2, "https://scores.example"))
        reply = await bench.ask("POST", INCREMENT, increment, token=WRITER)
        assert (reply.status, reply.json) == (421, examples.ERRORS[421])
    assert examples.ERRORS[413]["error"]["details"] == {"maximum": BODY_BYTES_MAX}


def test_every_body_and_every_json_answer_has_an_example() -> None:
    """And each is in the shape that is described beside it."""
    for route in ROUTES:
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        holders = [("the body", operation.get("requestBody", {}))]
        holders += [(status, resolve(response)) for status, response in operation["responses"].items()]
        for name, holder in holders:
            media = holder.get("content", {}).get("application/json")
            if media is None or name == "default" or (name == "200" and route.handler == "openapi"):
                continue
            assert list(faults(media["example"], media["schema"])) == [], (route.path, name)


@pytest.mark.parametrize("name", ["userId", "actionId", "boardId"])
def test_parameters_of_paths_have_the_names_of_the_story(name: str) -> None:
    """A curl that is made of them can be pasted after the story's writes."""
    [example] = DOCUMENT["components"]["parameters"][name]["schema"]["examples"]
    assert example in (examples.USER_ID, examples.ACTION_ID, examples.BOARD_ID)
