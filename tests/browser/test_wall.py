"""The wall, the overlay and the frame in a real browser: what people see, and who may frame a board."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import trio

from tests.browser import cdp
from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.prefix import below_prefix
from tests.e2e.leader import ALARM_SECONDS, Leader, serving

WALL = (1920, 1080)
PHONE = (390, 844)
LIVE = "board.state === 'live'"
NAMES = ["Ada", "W" * 60, "Chloé", "مريم", "Eve", "Finn", "Gus", "Heidi", "Ivan", "Jo"]

BARS = """JSON.stringify([...inside.querySelectorAll("tbody tr")].map((row) => {
  const bar = row.querySelector("[part=bar]");
  return [getComputedStyle(bar).backgroundColor, bar.getBoundingClientRect().height / row.offsetHeight];
}))"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CODE_IS_THERE = "document.getElementById('code').naturalWidth > 0 && !document.getElementById('code').hidden"
SHOWN_IN_FRAME = """(() => {
  const inside = document.querySelector("live-scoreboard")?.shadowRoot;
  const name = inside?.querySelector("[part=name]")?.textContent;
  const state = inside?.querySelector("[part~=status]")?.getAttribute("part").split(" ")[1];
  return name && state === "live" ? `${name} ${state}` : "";
})()"""
WATCHERS = "document.getElementById('watchers')"


async def ten(backend: Backend) -> None:
    """Ten users, each with less than the one before."""
    for place, name in enumerate(NAMES):
        await backend.name(f"user-{place}", name)
    await backend.report_many({f"user-{place}": 10 - place for place in range(10)})


async def test_a_wall_is_read_from_afar(page: Page, backend: Backend) -> None:
    """Ten rows fill the screen, bars fill the rows, three places differ; a code, who watches, and no more."""
    await ten(backend)
    await page.show_as(*WALL)
    await page.open(f"{backend.url}/wall")
    await page.wait(LIVE)
    await page.wait(f"inside.querySelectorAll('tbody tr').length === 10 && {CODE_IS_THERE}")
    await page.wait(f"!{WATCHERS}.hidden && {WATCHERS}.textContent.trim() === '1'")
    bars = json.loads(await page.evaluate(BARS))
    colours = [colour for colour, _ in bars]
    assert len(set(colours)) == len(set(colours[:4])) == 4
    assert all(share > 0.85 for _, share in bars)
    last = "inside.querySelector('tbody tr:last-child').getBoundingClientRect()"
    assert 0.85 * WALL[1] < await page.evaluate(f"{last}.bottom") <= WALL[1]
    assert await page.evaluate(f"{last}.width") > 0.9 * WALL[0]
    assert await page.evaluate(SIDEWAYS) == 0
    long_name = "inside.querySelectorAll('[part=name]')[1]"
    assert float(await page.evaluate(f"parseFloat({long_name}.style.fontSize)")) < 1, "it shrinks before it is cut"
    shown = (await page.evaluate("document.body.innerText + inside.querySelector('[part=board]').innerText")).lower()
    assert not [word for word in ("curl", "api", "token", "json", "live") if word in shown.split()]
    assert await page.evaluate("document.querySelectorAll('a').length") == 0


async def test_a_wall_has_a_title_a_countdown_and_a_badge(page: Page, tmp_path: Path) -> None:
    """All in its head, which is as high as ever, however long the title is."""
    config = tmp_path / "season.toml"
    config.write_text('[boards.main]\npoints = { WIN = 1 }\nperiod = { every = "day", zone = "UTC" }\n')
    async with serving(tmp_path / "season", config=config) as leader, Backend(leader.port) as backend:
        await backend.order("main", "freeze")
        await page.show_as(*WALL)
        await page.open(f"{backend.url}/wall?title={quote('A title of many words ' * 8)}")
        await page.wait(LIVE)
        await page.wait("/ends in|ends now/.test(inside.getElementById('ends').textContent)")
        await page.wait("inside.getElementById('freeze').getBoundingClientRect().height > 20")
        head = "inside.querySelector('[part=header]').getBoundingClientRect()"
        assert await page.evaluate(f"{head}.bottom") <= 0.2 * WALL[1]
        assert "No scores yet" in await page.evaluate("inside.querySelector('[part=empty]').innerText")


async def test_an_overlay_lies_over_anything(page: Page, backend: Backend) -> None:
    """Nothing behind it, white letters with a shadow. The code keeps its white ground, or is left out."""
    await ten(backend)
    await page.show_as(*WALL)
    await page.open(f"{backend.url}/wall?theme=transparent&rows=3")
    await page.wait(f"{LIVE} && {CODE_IS_THERE}")
    inner = ("inside.querySelector('[part=board]')", "inside.querySelector('tbody tr')")
    for part in ("document.documentElement", "document.body", "board", *inner):
        assert await page.evaluate(f"getComputedStyle({part}).backgroundColor") == "rgba(0, 0, 0, 0)", part
    name = "getComputedStyle(inside.querySelector('[part=name]'))"
    assert await page.evaluate(f"{name}.color") == "rgb(255, 255, 255)"
    assert await page.evaluate(f"{name}.textShadow") != "none"
    assert await page.evaluate("inside.querySelectorAll('tbody tr').length") == 3
    await page.open(f"{backend.url}/wall?theme=transparent&qr=no")
    await page.wait(f"{LIVE} && document.getElementById('code').complete")
    assert await page.evaluate("document.getElementById('code').hidden")


async def test_a_wall_fits_a_phone_and_runs_from_right_to_left(page: Page, backend: Backend) -> None:
    """Names of either script begin at one edge; nothing sticks out, and a hand that holds the page needs no code."""
    await ten(backend)
    await page.show_as(*PHONE)
    await page.open(f"{backend.url}/wall?lang=ar")
    await page.wait(f"{LIVE} && document.documentElement.dir === 'rtl'")
    assert await page.evaluate(SIDEWAYS) == 0
    assert await page.evaluate("getComputedStyle(document.getElementById('code')).display") == "none"
    names = "[...inside.querySelectorAll('[part=name]')]"
    assert await page.evaluate(f"{names}.every((name) => getComputedStyle(name).textAlign === 'right')")


async def test_a_wall_below_a_path_leads_to_that_path(page: Page, leader: Leader) -> None:
    """A proxy serves the board below a path: the code and the number of viewers are asked for there."""
    async with below_prefix("/board", leader.port) as url:
        await page.open(f"{url}wall")
        await page.wait(f"{CODE_IS_THERE} && !{WATCHERS}.hidden")
        base = "new URL(document.getElementById('code').src).searchParams.get('base')"
        assert await page.evaluate(base) == f"{url}wall"


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """Serve pages of another origin, as strict as pages can be: `/PORT` has a frame of the leader at that port."""

    async def serve(stream: trio.SocketStream) -> None:
        port = (await stream.receive_some(65536)).split(b" ")[1].decode().strip("/")
        frame = f"http://127.0.0.1:{port}/embed?rows=3"
        body = f'<!doctype html><title>host</title><iframe src="{frame}" width="600" height="700"></iframe>'.encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            "Content-Security-Policy: default-src 'none'; frame-src http:\r\n\r\n"
        )
        await stream.send_all(head.encode() + body)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, port=0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_frame_is_for_allowed_sites_only(browser: cdp.Browser, tmp_path: Path, config: Path) -> None:
    """The board is live in the frame of an allowed site; in that of another one the browser refuses to show it."""
    async with site() as host:
        for origin, expected in ((host, "ada live"), ("https://game.example", "blocked")):
            extra = {"SCOREBOARD_LIVE_ALLOWED_ORIGINS": origin}
            async with (
                serving(tmp_path / expected, config=config, extra=extra) as leader,
                Backend(leader.port) as backend,
                browser.new_page() as page,
            ):
                await backend.report("ada")
                await page.open(f"{host}/{leader.port}")
                with trio.fail_after(ALARM_SECONDS):
                    while not (shown := await inside_frame(page)):  # noqa: ASYNC110  # a frame has no event
                        await trio.sleep(0.05)
                assert shown == expected


async def inside_frame(page: Page) -> str:
    """What the frame shows: a name, the state and the channel, or that it is blocked. Empty: nothing yet."""
    tree = (await page.call("Page.getFrameTree"))["frameTree"]
    frames = [child["frame"] for child in tree.get("childFrames", [])]
    if not frames:
        return ""
    if frames[0].get("unreachableUrl"):
        return "blocked"
    world = await page.call("Page.createIsolatedWorld", frameId=frames[0]["id"])
    found = await page.call(
        "Runtime.evaluate", contextId=world["executionContextId"], returnByValue=True, expression=SHOWN_IN_FRAME
    )
    return str(found["result"].get("value") or "")
