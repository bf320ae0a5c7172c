"""Whose display names a caller sees: on every route that shows rows, in both lanes, by its token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.access.auth import Principal
from server.api.reads import Top
from server.http.messages import Request
from tests.server.api.support import READER, REGISTRAR, WRITER, Bench, Reply, Tokens, both_ways, open_bench
from tests.server.api.test_past_periods import NO_FILE, play

WHOLE = {"ann": "Ann Kathrin", "ben": "Ben"}
SHORT = {"ann": "A. K.", "ben": "B."}
OWN = "Bearer phone scores:write ann"
"""The token of the user `ann`, which may not read everything."""

READS = {
    "top": ("GET", "/scoreboard/top"),
    "walk": ("GET", "/scoreboard"),
    "around": ("GET", "/scores/ann/around"),
    "query": ("POST", "/scores/query"),
}
ASKED: dict[str, Any] = {"query": {"userIds": ["ann", "ben"]}}


class Strict(Tokens):
    """Believes no nonsense."""

    def recall(self, authorization: str | None) -> Principal | None:
        return None if authorization == "Bearer nonsense" else super().recall(authorization)


async def fill(bench: Bench) -> None:
    """Two users with names and points."""
    for user_id, name in WHOLE.items():
        await bench.ask("PUT", f"/users/{user_id}", {"displayName": name}, token=REGISTRAR)
        await bench.increment(user_id, f"of {user_id}")


def names_in(reply: Reply) -> dict[str, str | None]:
    """Give the names of an answer's rows by user."""
    assert reply.status == 200, reply
    return {entry["userId"]: entry.get("displayName") for entry in reply.json["entries"]}


@both_ways
@pytest.mark.parametrize("public_reads", [True, False])
@pytest.mark.parametrize("read", READS)
async def test_each_caller_sees_the_names_that_it_may(read: str, public_reads: bool, through_quart: bool) -> None:
    """Initials for the public, all names for scores:read, one's own name for a user; a bad token counts as none."""
    options = {"through_quart": through_quart, "public_reads": public_reads}
    async with open_bench(**options, names="initials", authenticator=Strict()) as bench:
        await fill(bench)
        method, target = READS[read]
        for token, names in (
            (READER, WHOLE),
            ("Bearer root admin", WHOLE),
            (WRITER, SHORT),
            (OWN, {**SHORT, "ann": WHOLE["ann"]}),
            *(((None, SHORT), ("Bearer nonsense", SHORT)) if public_reads else ()),
        ):
            assert names_in(await bench.ask(method, target, ASKED.get(read), token=token)) == names, token


@both_ways
async def test_hidden_names_are_left_out(through_quart: bool) -> None:
    """There is no displayName then, as for a user who has none."""
    async with open_bench(through_quart=through_quart, names="hidden") as bench:
        await fill(bench)
        reply = await bench.ask("GET", "/scoreboard/top")
        assert [sorted(entry) for entry in reply.json["entries"]] == [["rank", "score", "userId"]] * 2
        assert "displayName" not in (await bench.ask("GET", "/scores/ann")).json
        assert (await bench.ask("GET", "/scores/ann", token=OWN)).json["displayName"] == "Ann Kathrin"
        assert "displayName" not in (await bench.ask("GET", "/scores/ben", token=OWN)).json
        assert (await bench.ask("GET", "/scores?userId=ben", token=READER)).json["displayName"] == "Ben"


async def test_past_periods_show_the_same_names(tmp_path: Path) -> None:
    """The top, a user's score, the neighbours and a walk of a period that ended."""
    async with open_bench(rules=NO_FILE, periods=tmp_path, names="initials") as bench:
        await play(bench)
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann Kathrin"}, token=REGISTRAR)
        past = "boardId=cup&period=2025-W51"
        for token, name in ((None, "A. K."), (READER, "Ann Kathrin"), (OWN, "Ann Kathrin")):
            for target in (f"/scoreboard/top?{past}", f"/scoreboard?{past}", f"/scores/ann/around?{past}"):
                assert names_in(await bench.ask("GET", target, token=token))["ann"] == name, (target, token)
            assert (await bench.ask("GET", f"/scores/ann?{past}", token=token)).json["displayName"] == name


async def test_answers_with_other_names_have_other_etags() -> None:
    """So a browser that signs in gets the names, and one that signs out loses them."""
    async with open_bench(names="initials") as bench:
        await fill(bench)
        tags = {}
        for who, token in (("public", None), ("reader", READER), ("ann", OWN), ("ben", "Bearer b scores:write ben")):
            reply = await bench.ask("GET", "/scoreboard/top", token=token)
            tags[who] = reply.headers["etag"]
            again = await bench.ask("GET", "/scoreboard/top", token=token, headers={"if-none-match": tags[who]})
            assert again.status == 304
        assert len(set(tags.values())) == 4


def test_the_express_lane_takes_a_top_only_if_it_knows_the_names() -> None:
    """Without a token, or with one that was verified and is of no single user. The others take all steps."""

    def top_of(bench: Bench, token: str | None) -> Top | None:
        headers = {} if token is None else {"authorization": token}
        head = bench.pipeline.recognise(Request("GET", "/scoreboard/top", "", headers))
        return None if head is None else head.top

    public, closed = Bench(names="initials"), Bench(names="initials", public_reads=False)
    assert top_of(public, None) == Top("main", 10, all_names=False)
    assert top_of(public, READER) is None
    assert top_of(closed, READER) == Top("main", 10, all_names=True)
    assert top_of(closed, WRITER) == Top("main", 10, all_names=False)
    assert top_of(closed, OWN) is None
    shown = Bench()
    assert top_of(shown, READER) == top_of(shown, None) == Top("main", 10, all_names=True)
