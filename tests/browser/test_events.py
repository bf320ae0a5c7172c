"""The stream of server-sent events in a browser: its own EventSource understands it."""

from __future__ import annotations

from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.test_page import LIVE


async def test_an_event_source_gets_each_state_with_its_position(page: Page, backend: Backend) -> None:
    """Over the connection by which the page came, perhaps: the browser chooses."""
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    await page.evaluate(
        "window.seen = [], window.source = new EventSource('/sse/scoreboard?boardId=main'),"
        "source.onmessage = (event) => seen.push([event.lastEventId.split('-')[1], JSON.parse(event.data)]), null"
    )
    await page.wait("seen.length === 1")
    await backend.report("ada")
    await page.wait("seen.length === 2")
    [[before, snapshot], [after, update]] = await page.evaluate("seen")
    assert (snapshot["type"], snapshot["entries"], int(before)) == ("scoreboard_snapshot", [], snapshot["seq"])
    assert (update["type"], update["entries"][0]["userId"], int(after)) == ("scoreboard_update", "ada", update["seq"])
