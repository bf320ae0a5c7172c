"""Title, period, countdown, freeze, reveal and the end of a period, as people see them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.browser import scripts
from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.test_connection import POLLING
from tests.browser.test_page import LAPTOP, LIVE, PHONE, SMALL_PHONE, WALL, overflow, wait_rows
from tests.e2e.leader import token

SEASON = "inside.getElementById('season').innerText.trim().split(/\\s*\\n\\s*/)"
ENDS = "inside.getElementById('ends').textContent"
FREEZE = "(inside.getElementById('freeze').hidden ? '' : inside.getElementById('freeze').innerText)"
FINAL = "inside.getElementById('final').textContent"
SAID = "inside.querySelector('[aria-live=polite]').textContent"
CUT = "inside.getElementById('season').scrollWidth > inside.getElementById('season').clientWidth"
TABLE_TOP = "inside.querySelector('tbody').getBoundingClientRect().top"
POSITION = "[board.board.epoch, board.board.seq].join('/')"
WEEK = {"every": "week", "zone": "UTC"}

CLOCK_TIME = r"\d\d:\d\d [AP]M"


async def save_for_eyes(page: Page, name: str) -> None:
    """Keep a screenshot where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        await page.save_screenshot(Path(folder) / f"{name}.png")


async def test_title_period_and_the_time_to_its_end(page: Page, backend: Backend) -> None:
    """The title is the heading. The reader's clock is an hour ahead: the first change sets the countdown right."""
    await page.before_scripts(scripts.CLOCK_AHEAD)
    ends = datetime.now(UTC) + timedelta(days=2, hours=3, minutes=30)
    title = "Winter <b>cup"
    made = await backend.board("cup", title=title, period={"ends": ends.isoformat(timespec="seconds")})
    await page.open(f"{backend.url}/?boardId=cup")
    await page.wait(LIVE)
    assert await page.evaluate("inside.querySelector('[part=title]').innerText") == title
    assert await page.evaluate("document.title") == title
    await backend.report("ada", board_id="cup")
    await page.wait(f"{ENDS} === 'ends in 2 d 3 h'")
    assert await page.evaluate(SEASON) == [made["period"], "ends in 2 d 3 h"]
    assert await page.evaluate("inside.getElementById('ends').dateTime") == made["endsAt"]


async def test_the_words_of_the_countdown(page: Page, backend: Backend) -> None:
    """Days and hours, hours and minutes, in the last hour a clock that runs; and what is said after the end."""
    await page.before_scripts(scripts.WATCHED_LINKS)
    await page.before_scripts(scripts.TOLD)
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    assert await page.evaluate("inside.getElementById('season').innerText.trim()") == ""
    for seconds, words in (
        (2 * 86400 + 3 * 3600 + 9, "ends in 2 d 3 h"),
        (86400 + 9, "ends in 1 d 0 h"),
        (3 * 3600 + 20 * 60 + 9, "ends in 3 h 20 min"),
        (3600 + 9, "ends in 1 h 0 min"),
        (-5, "ends now"),
    ):
        await page.evaluate(f"say({{ period: 'p', endsAt: after({seconds}) }})")
        assert await page.evaluate(ENDS) == words
    await page.evaluate("say({ period: 'p', endsAt: after(65) })")
    await page.wait(f"/^ends in 1:0[0-5]$/.test({ENDS})")
    await page.evaluate("say({ period: 'p', endsAt: after(-5), frozenAt: after(-9) })")
    assert await page.evaluate(ENDS) == "ended"
    await page.evaluate("say({ period: 'p', endsAt: after(-5), over: true })")
    assert await page.evaluate(SEASON) == ["p", "over"]
    await page.evaluate("say({})")
    assert await page.evaluate("inside.getElementById('season').innerText.trim()") == ""


async def test_a_freeze_and_a_reveal(page: Page, backend: Backend) -> None:
    """Frozen: a badge says since when, and rows stand still. A reveal moves one row. After the last one no badge."""
    await page.before_scripts(scripts.COUNTED_MOVES)
    await backend.board("cup", title="Winter cup", period=WEEK)
    await backend.report_many({"ada": 3, "grace": 2, "linus": 1}, board_id="cup")
    await page.open(f"{backend.url}/?boardId=cup")
    before = [("1", "ada", "30"), ("2", "grace", "20"), ("3", "linus", "10")]
    await wait_rows(page, before)
    top = await page.evaluate(TABLE_TOP)
    await backend.order("cup", "freeze")
    await page.wait(f"/^frozen since {CLOCK_TIME}$/.test({FREEZE})")
    assert await page.evaluate(TABLE_TOP) == top
    assert str(datetime.now(UTC).year) in await page.evaluate("inside.getElementById('freeze').title")
    await page.wait(f"/^The board is frozen since {CLOCK_TIME}.$/.test({SAID})")

    await backend.report("linus", reason="BONUS", board_id="cup")
    await backend.order("cup", "reveal", step=1)
    await wait_rows(page, [("1", "linus", "1,510"), ("2", "ada", "30"), ("3", "grace", "20")])
    assert await page.evaluate("moves") == 3
    assert await page.evaluate("inside.querySelector('[part~=leads] .gain').textContent") in {"+1,500", ""}
    await page.wait(f"/^frozen since {CLOCK_TIME} · 1 revealed$/.test({FREEZE})")
    await save_for_eyes(page, "reveal")
    await page.wait("inside.querySelector('[part~=leads] .gain').textContent === ''")  # half faded it has no contrast
    for dark in (False, True):
        for size in (SMALL_PHONE, PHONE, WALL, LAPTOP):
            await page.show_as(*size, dark=dark)
            assert await overflow(page) == 0
            assert await page.evaluate(CUT) is False
        await page.wait(f"{scripts.WORST_CONTRAST.strip()} >= 4.5")  # colours change within half a second
    await page.show_as(*PHONE, dark=True)
    assert await page.evaluate(FREEZE) == "frozen · 1 revealed"
    await save_for_eyes(page, "reveal-phone")

    await backend.order("cup", "reveal", step=2)
    await page.wait(f"{FREEZE} === ''")
    await page.wait(f"{SAID} === 'The board is no longer frozen.'")


async def test_the_present_of_a_frozen_board(page: Page, backend: Backend) -> None:
    """With view=live and a token the page shows what counts now, and says that only the public's board is frozen."""
    await backend.board("cup")
    await backend.report("ada", board_id="cup")
    await backend.order("cup", "freeze")
    await backend.report("grace", reason="BONUS", board_id="cup")
    address = f"{backend.url}/?boardId=cup&view=live#token={token('scores:read')}"
    await page.open(address)
    await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])
    await page.wait(LIVE)
    await page.wait(f"/^frozen since {CLOCK_TIME} for the public$/.test({FREEZE})")
    await page.before_scripts(scripts.NO_PUSH)
    await page.open("about:blank")
    await page.open(address)
    await page.wait(POLLING)
    await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])


async def test_the_end_of_a_period(page: Page, backend: Backend) -> None:
    """The last rows stay for seconds, as final ones, while the state goes on. Then the new period's board is there."""
    await page.before_scripts(scripts.FAST_CLOCK)
    made = await backend.board("cup", period=WEEK)
    await backend.report_many({"ada": 2, "grace": 1}, board_id="cup")
    await page.open(f"{backend.url}/?boardId=cup")
    last = [("1", "ada", "20"), ("2", "grace", "10")]
    await wait_rows(page, last)
    top = await page.evaluate(TABLE_TOP)
    seen = await page.evaluate(scripts.SHOWN_ROWS)
    # What shows meanwhile is taken down in the page, because it lasts only for a moment.
    await page.evaluate(
        "window.states = [], new MutationObserver(() => states.push("
        f"[{FINAL}, {scripts.SHOWN_ROWS.strip()}, {POSITION}, {TABLE_TOP}]))"
        ".observe(inside, { subtree: true, childList: true, attributes: true, characterData: true }), 0"
    )
    position = await page.evaluate(POSITION)

    await backend.order("cup", "reset")

    await page.wait(f"inside.getElementById('empty').checkVisibility() && {FINAL} === ''")
    states = await page.evaluate("states")
    finals = [state for state in states if state[0] == f"final: {made['period']}"]
    assert finals[-1][2] != position  # the page knew the new period all the time
    assert all(state[1] == seen and state[3] == top for state in finals)
    assert await page.evaluate(SAID) == f"{made['period']} has ended. ada is first with 20."
    await backend.report("grace", board_id="cup")
    await wait_rows(page, [("1", "grace", "10")])
    assert await page.evaluate("inside.querySelector('.gain').textContent") == ""


async def test_the_final_rows_do_not_stay_too_long(page: Page, backend: Backend) -> None:
    """Final rows with their caption, and the next period's rows once the page has waited long enough."""
    made = await backend.board("cup", title="Winter cup", period=WEEK)
    await backend.report_many({"ada": 2, "grace": 1}, board_id="cup")
    await page.open(f"{backend.url}/?boardId=cup")
    await wait_rows(page, [("1", "ada", "20"), ("2", "grace", "10")])
    await backend.order("cup", "reset")
    await page.wait(f"{FINAL} === 'final: {made['period']}'")
    await backend.report("grace", board_id="cup")
    await save_for_eyes(page, "final")
    await wait_rows(page, [("1", "grace", "10")])


async def test_polling_shows_the_same(page: Page, backend: Backend) -> None:
    """Without a WebSocket: title, period, freeze, and the final rows of a period; nothing moves for who wants that."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.NO_PUSH)
    await page.before_scripts(scripts.COUNTED_MOVES)
    await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    made = await backend.board("cup", title="Winter cup", period=WEEK)
    await backend.report_many({"ada": 2, "grace": 1}, board_id="cup")
    await page.open(f"{backend.url}/?boardId=cup")
    await page.wait(POLLING)
    await wait_rows(page, [("1", "ada", "20"), ("2", "grace", "10")])
    assert await page.evaluate("inside.querySelector('[part=title]').innerText") == "Winter cup"
    assert (await page.evaluate(SEASON))[0] == made["period"]
    assert (await page.evaluate(ENDS)).startswith("end")
    await backend.order("cup", "freeze")
    await page.wait(f"{FREEZE}.startsWith('frozen since ')")
    await backend.order("cup", "unfreeze")
    await page.wait(f"{FREEZE} === ''")

    await page.evaluate(
        "window.captions = [], new MutationObserver(() => captions.push("
        f"{FINAL} + ' ' + inside.querySelector('[part=score] > :last-child')?.textContent))"
        ".observe(inside.getElementById('final'), { childList: true, characterData: true, subtree: true }), 0"
    )
    await backend.report("grace", reason="BONUS", board_id="cup")  # the page may not have asked again before the end
    await backend.order("cup", "reset")
    await page.wait("inside.getElementById('empty').checkVisibility()")
    assert f"final: {made['period']} 1,510" in await page.evaluate("captions")
    assert await page.evaluate("moves") == 0


@pytest.mark.parametrize(("ranks", "shown"), [("shared", "1224"), ("dense", "1223")])
async def test_equal_ranks_stay_in_order(page: Page, backend: Backend, ranks: str, shown: str) -> None:
    """Two users share a rank. One goes and comes back, ahead of the other, since that one was later."""
    await backend.board("cup", ranks=ranks)
    await backend.report_many({"ada": 3, "grace": 2, "linus": 2, "zoe": 1}, board_id="cup")
    await page.open(f"{backend.url}/?boardId=cup")
    rows = list(zip(shown, ("ada", "grace", "linus", "zoe"), ("30", "20", "20", "10"), strict=True))
    await wait_rows(page, rows)
    await backend.show("grace", active=False)
    await page.wait("inside.querySelectorAll('tbody tr:not([aria-hidden])').length === 3")
    await backend.show("grace", active=True)
    await wait_rows(page, rows)
    assert await page.evaluate(LIVE)


MOVED_CELLS = "inside.querySelectorAll('tbody tr:not([aria-hidden=true]) [part=change]')"
MOVED = f"[...{MOVED_CELLS}].map((cell) => [cell.textContent, cell.title])"


async def test_rows_say_how_far_they_moved(page: Page, backend: Backend) -> None:
    """Since the last period, on a board that is younger than a day; before that nothing. It fits on a small phone."""
    await backend.board("cup")
    await backend.report_many({"ada": 4, "bob": 3, "cleo": 2, "dora": 1}, board_id="cup")
    await page.open(f"{backend.url}/?boardId=cup")
    await page.wait(LIVE)
    await wait_rows(page, [("1", "ada", "40"), ("2", "bob", "30"), ("3", "cleo", "20"), ("4", "dora", "10")])
    assert await page.evaluate(MOVED) == [["", ""]] * 4
    await backend.order("cup", "reset")
    await backend.report_many({"cleo": 4, "ada": 3, "eve": 2, "dora": 1}, board_id="cup")
    await wait_rows(page, [("1", "cleo", "40"), ("2", "ada", "30"), ("3", "eve", "20"), ("4", "dora", "10")])
    when = "since the last period"
    assert await page.evaluate(MOVED) == [
        ["▲2", f"2 places up {when}"], ["▼1", f"1 place down {when}"],
        ["new", "Not among the first 100 of the last period"], ["", ""],
    ]  # fmt: skip
    for name, size in (("moved", LAPTOP), ("moved-phone", SMALL_PHONE)):
        await page.show_as(*size)
        assert await overflow(page) == 0
        await save_for_eyes(page, name)
