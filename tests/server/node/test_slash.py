"""One slash at the end of a path makes no difference, on any route, in any lane. Two do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from server.api.routes import ROUTES
from server.live.event_feed import FEED_PATH
from server.live.events import STREAM_PATH
from server.replication.messages import FORK_PATH, LOG_PATH, SNAPSHOT_PATH
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.questions import bearer, question
from tests.server.node.roles import STAGES
from tests.server.node.ways import WAYS, Talk

PATHS = {
    # Whoever is erased is gone at the second request, so nobody is.
    *(
        (route.method, re.sub(r"\{\w+\}", "nobody" if "erase" in route.handler else "ann", route.path))
        for route in ROUTES
    ),
    *(("GET", path) for path in (LOG_PATH, SNAPSHOT_PATH, FORK_PATH)),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_slash_at_the_end_makes_no_difference(way: str, tmp_path: Path) -> None:
    """The answer is the same with it, and with a query behind it."""
    token = bearer("admin", "log:read")
    with trio.fail_after(PATIENCE_SECONDS):
        async with STAGES["leader"].enter(tmp_path) as (served, _):
            talk = Talk(way, served)
            for method, path in sorted(PATHS):
                if path in ("/", "/metrics", STREAM_PATH, FEED_PATH.replace("{boardId}", "ann")):  # a stream has no end
                    continue
                query = "?epoch=1" if path == FORK_PATH else ""
                targets = [path + query, f"{path}/{query}", f"{path}//{query}"]
                asked = [
                    question("", method, target, b"" if method == "GET" else b"{}", token=token) for target in targets
                ]
                plain, slashed, twice = [await talk.ask(each) for each in asked]
                assert slashed == plain, path
                assert twice[0] == 404, path
            await talk.close()


async def test_the_page_at_the_root_is_not_the_page_of_two_slashes(tmp_path: Path) -> None:
    """The root is a slash already."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with STAGES["leader"].enter(tmp_path) as (served, _):
            talk = Talk("http", served)
            targets = ("/", "/?a=b", "//", "/metrics/")
            statuses = [(await talk.ask(question("", "GET", target)))[0] for target in targets]
            assert statuses == [200, 200, 404, 200]
            await talk.close()
