"""The live page stays fresh: it recovers by itself, polls where it must, and never goes back in time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.browser import scripts
from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.prefix import below_prefix
from tests.browser.test_page import LIVE, wait_rows
from tests.e2e.leader import SECRET, Leader, serving, token

POLLING = "board.state === 'polling'"
RECONNECTING = "board.state === 'reconnecting'"
REFUSED = "board.state === 'refused'"
BEHIND = "board.state === 'behind'"
PAUSED = "board.state === 'paused'"
NOTICE = "inside.getElementById('notice').innerText"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
async def test_it_recovers_when_the_server_is_back(
    page: Page, tmp_path: Path, config: Path, end: signal.Signals
) -> None:
    """The server stops, killed or in order, and starts again on the same port: the page says that it is waiting, keeps
    what it showed, and is live again without a reload.
    """
    await page.before_scripts(scripts.FAST_CLOCK)
    async with serving(tmp_path / "data", config=config) as leader, Backend(leader.port) as backend:
        await backend.report_many({"ada": 2, "grace": 1})
        await page.open(f"{backend.url}/")
        await page.wait(LIVE)
        await page.evaluate("window.loaded = 'once'")
        leader.signal(end)
        await leader.wait()
    await page.wait(RECONNECTING)
    await wait_rows(page, [("1", "ada", "20"), ("2", "grace", "10")])
    again = ("--bind", f"127.0.0.1:{leader.port}")
    async with serving(tmp_path / "data", config=config, arguments=again) as leader, Backend(leader.port) as backend:
        await page.wait(LIVE)
        await backend.report("grace", reason="BONUS")
        await wait_rows(page, [("1", "grace", "1,510"), ("2", "ada", "20")])
    assert await page.evaluate("loaded") == "once"


async def test_the_servers_own_page_is_live_whatever_sites_are_allowed(
    page: Page, tmp_path: Path, config: Path
) -> None:
    """`allowed_origins` is about the pages of others."""
    others = {"SCOREBOARD_LIVE_ALLOWED_ORIGINS": '["https://elsewhere.example"]'}
    async with serving(tmp_path / "data", config=config, extra=others) as leader, Backend(leader.port) as backend:
        await page.open(f"{backend.url}/")
        await page.wait(f"{LIVE} && board.channel === 'websocket'")
        await backend.report("ada")
        await wait_rows(page, [("1", "ada", "10")])


async def test_a_blocked_link_is_tried_only_now_and_then(page: Page, backend: Backend) -> None:
    """A proxy lets neither WebSocket nor events through: after some tries new ones become rare, while polls go on."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.NO_PUSH)
    await page.open(f"{backend.url}/")
    await page.wait("attempts.length >= 3 && streams.length >= 3")
    await backend.report("ada")
    await wait_rows(page, [("1", "ada", "10")])
    for tried in ("attempts", "streams"):  # in the page's time
        await page.wait(f"{tried}.some((at, number) => at - {tried}[number - 1] > 40_000)")
    assert await page.evaluate(POLLING)


async def test_after_a_restart_pages_come_back_spread_out(page: Page, backend: Backend) -> None:
    """A close with code 1012 reaches every viewer at once, so each draws when it returns, within several seconds."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.WATCHED_LINKS)
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    await page.evaluate(
        "Math.random = () => 0.9, window.closedAt = Date.now(),"
        "links[0].dispatchEvent(new CloseEvent('close', { code: 1012 }))"
    )
    await page.wait(f"links.length === 2 && {LIVE}")
    assert await page.evaluate("links[1].made - closedAt") >= 9_000  # with this draw; after an ordinary close 900


async def test_it_polls_when_the_websocket_goes_away(page: Page, backend: Backend) -> None:
    """The link breaks and does not come back: the page polls, and misses nothing."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.WATCHED_LINKS)
    await backend.report("ada")
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    await page.evaluate(scripts.NO_PUSH)
    await page.evaluate("links[0].close()")
    await page.wait(POLLING)
    await backend.report("grace", reason="BONUS")
    await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])


async def test_a_missed_delta_is_noticed(page: Page, backend: Backend) -> None:
    """A delta gets lost: the next one does not fit, and the page asks for a snapshot on a new link."""
    await page.before_scripts(scripts.WATCHED_LINKS)
    await backend.report_many({"ada": 5, "grace": 1})
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    assert await page.evaluate("links[0].protocol") == "scoreboard.delta.v1"
    # The page does not get the first change; a second listener tells the test when it has arrived.
    await page.evaluate("deaf = true, links[0].addEventListener('message', () => { window.arrived = true; })")
    await backend.report("grace")
    await page.wait("window.arrived")
    await page.evaluate("deaf = false")
    await backend.report("ada")
    await wait_rows(page, [("1", "ada", "60"), ("2", "grace", "20")])
    await page.wait(LIVE)
    assert await page.evaluate("links.length") == 2


async def test_silence_is_not_taken_for_quiet(page: Page, backend: Backend) -> None:
    """A quiet board on a good link: the page polls, and keeps the link. A link that delivers nothing any more: the
    page polls, sees that it missed something, and connects again.
    """
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.WATCHED_LINKS)
    await backend.report("ada")
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    polls = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/scoreboard/top')).length"
    before = await page.evaluate(polls)
    await page.wait(f"{polls} > {before + 1}")
    assert await page.evaluate("links.length") == 1
    await page.evaluate("deaf = true, links[0].addEventListener('close', () => { deaf = false; })")
    await backend.report("grace", reason="BONUS")
    await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])
    await page.wait(f"links.length === 2 && {LIVE}")


async def test_it_never_goes_back_in_time(page: Page, backend: Backend) -> None:
    """The page notices a server that lags behind, and ignores its state; a newer epoch is newer."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.NO_PUSH)
    await page.before_scripts(scripts.FORGED_POLLS)
    await backend.report_many({"ada": 5})
    await page.open(f"{backend.url}/")
    await wait_rows(page, [("1", "ada", "50")])
    await page.evaluate("forged = { epoch: 1, seq: 2, entries: [{ userId: 'ada', score: 20, rank: 1 }] }")
    await page.wait(BEHIND)
    await wait_rows(page, [("1", "ada", "50")])
    await page.evaluate("forged = { epoch: 2, seq: 1, entries: [{ userId: 'ada', score: 10, rank: 1 }] }")
    await wait_rows(page, [("1", "ada", "10")])
    assert await page.evaluate(POLLING)


async def test_a_hidden_page_rests_and_catches_up(page: Page, backend: Backend) -> None:
    """A hidden page closes its link; when it is visible again, it shows the present state."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.WATCHED_LINKS)
    await page.before_scripts(scripts.VISIBILITY)
    await backend.report("ada")
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    await page.evaluate("look(false)")
    await page.wait(f"{PAUSED} && links[0].readyState === WebSocket.CLOSED")
    await backend.report("grace", reason="BONUS")
    await wait_rows(page, [("1", "ada", "10")])
    await page.evaluate("look(true)")
    await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])
    await page.wait(LIVE)


async def test_it_works_below_a_path(page: Page, leader: Leader, backend: Backend) -> None:
    """Behind a proxy that serves it below a path, page, polls, WebSocket and the link to the API all stay below it."""
    await page.before_scripts(scripts.WATCHED_LINKS)
    await backend.report("ada")
    async with below_prefix("/games/board", leader.port) as address:
        await page.open(address)
        await page.wait(LIVE)
        await wait_rows(page, [("1", "ada", "10")])
        assert await page.evaluate("new URL(links[0].url).pathname") == "/games/board/ws/scoreboard"
        await page.open(await page.evaluate("document.querySelector('footer a').href"))
        await page.wait("document.documentElement.dataset.state === 'shown'")
        assert await page.evaluate("document.querySelector('h1 a').href") == address
        await page.before_scripts(scripts.NO_PUSH)
        await page.open(address)
        await page.wait(POLLING)
        await wait_rows(page, [("1", "ada", "10")])


async def test_a_board_that_does_not_exist(page: Page, backend: Backend) -> None:
    """The page names a wrong boardId in one sentence, with the id as text."""
    await page.open(f"{backend.url}/?boardId=%3Cb%3Enope")
    await page.wait(REFUSED)
    assert "There is no board “<b>nope” here." in await page.evaluate(NOTICE)
    assert await page.evaluate("inside.querySelector('table').hidden")


async def test_reads_that_are_not_public(page: Page, tmp_path: Path, config: Path) -> None:
    """Without a token the page says that it needs one. With one in the fragment it is live, and no request has the
    token in its address. An expired token has a message of its own.
    """
    await page.before_scripts(scripts.WATCHED_LINKS)
    private = {"SCOREBOARD_AUTH_PUBLIC_READS": "false"}
    async with serving(tmp_path / "data", config=config, extra=private) as leader, Backend(leader.port) as backend:
        await backend.report("ada")
        await page.open(f"{backend.url}/")
        await page.wait(REFUSED)
        assert "This board is not public." in await page.evaluate(NOTICE)

        bearer = token("scores:read")
        await page.evaluate(f"location.hash = 'token={bearer}'")
        await page.wait(LIVE)
        await wait_rows(page, [("1", "ada", "10")])
        assert await page.evaluate("inside.getElementById('notice').hidden")
        assert await page.evaluate("links.at(-1).offered.at(-1)") == f"scoreboard.token.{bearer}"
        requests = await page.evaluate("performance.getEntriesByType('resource').map((one) => one.name)")
        requests += await page.evaluate("links.map((one) => one.url)")
        assert len(requests) > 2
        assert [url for url in requests if bearer in url] == []

        stale = token("scores:read", seconds=-3600, secret=SECRET)
        await page.evaluate(f"location.hash = 'token={stale}'")
        await page.wait(REFUSED)
        assert "The token is not accepted." in await page.evaluate(NOTICE)

        unfit = token("users:write")
        await page.evaluate(f"location.hash = 'token={unfit}'")
        await page.wait(f"{NOTICE}.includes('scores:read')")

        await page.evaluate("location.hash = 'token=not a token'")
        await page.wait(f"{NOTICE}.includes('is not a token')")


async def test_a_token_that_expires_while_the_page_is_open(page: Page, tmp_path: Path, config: Path) -> None:
    """The page says so and does not knock again and again; with a new #token= it goes on without a reload."""
    await page.before_scripts(scripts.WATCHED_LINKS)
    private = {"SCOREBOARD_AUTH_PUBLIC_READS": "false"}
    at_once = {"server.bounds.LEASE_GRACE_SECONDS": 0, "server.bounds.TOKEN_LEEWAY_SECONDS": 0}
    async with (
        serving(tmp_path / "data", config=config, extra=private, constants=at_once) as leader,
        Backend(leader.port) as backend,
    ):
        await backend.report("ada")
        await page.open(f"{backend.url}/#token={token('scores:read', seconds=10)}")
        await page.wait(LIVE)
        await page.wait(REFUSED)
        assert "The token has expired." in await page.evaluate(NOTICE)
        count = await page.evaluate("links.length")
        await page.evaluate(f"location.hash = 'token={token('scores:read')}'")
        await page.wait(LIVE)
        assert await page.evaluate("links.length") == count + 1


async def test_the_age_of_what_is_shown(page: Page, tmp_path: Path, config: Path) -> None:
    """While nothing answers, the page says how old its rows are."""
    await page.before_scripts(scripts.FAST_CLOCK)
    async with serving(tmp_path / "data", config=config) as leader:
        began = time.monotonic()
        await page.open(f"http://127.0.0.1:{leader.port}/")
        await page.wait(LIVE)
        assert await page.evaluate("inside.getElementById('status').innerText") == "Live"
    await page.wait("/^· [1-9][0-9] s ago$/.test(inside.getElementById('age').textContent)")
    assert time.monotonic() - began > 9 / scripts.FAST
