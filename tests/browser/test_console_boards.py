"""Boards in the console: freeze, reveal, unfreeze, plan, end, close; and the form of the rules."""

from __future__ import annotations

import json
from typing import Any

from tests.browser import console
from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.console import BUTTONS, FAULT, SAID, TEXT
from tests.browser.test_season import save_for_eyes
from tests.e2e.leader import token

OPERATOR = token("boards:write", "scores:read", sub="operator")
TABLES = """
Object.fromEntries([...document.querySelectorAll('.side table')].map((one) => [one.caption.textContent,
  [...one.tBodies[0].rows].map((row) => `${row.cells[1].textContent} ${row.cells[3].textContent}`)]))
"""


async def board(url: str, board_id: str = "cup") -> dict[str, Any]:
    """What the server says of a board, its rules too."""
    return await console.answer(url, f"/boards/{board_id}", OPERATOR)


async def test_freeze_reveal_and_unfreeze(page: Page, backend: Backend) -> None:
    """Step by step: the public's rows and those of now stand side by side, and each step names what it does."""
    await backend.board("cup", title="Winter cup")
    await backend.report_many({"ada": 3, "grace": 2}, board_id="cup")
    await console.sign_in(page, backend.url, OPERATOR, "#boards/cup")
    await console.press(page, "Freeze…")
    assert "From now on the public sees no change" in await console.confirm(page, "Freeze cup?")
    await page.wait(f"{SAID} === 'cup is frozen.'")
    assert "frozenAt" in await board(backend.url)

    await backend.report("grace", reason="BONUS", board_id="cup")
    await console.press(page, "Refresh")
    await page.wait(f"JSON.stringify({TABLES.strip()}).includes('1,520')")
    assert await page.evaluate(TABLES) == {
        "What the public sees": ["ada 30", "grace 20"],
        "What counts now": ["grace 1,520", "ada 30"],
    }
    await save_for_eyes(page, "console-frozen")
    await console.press(page, "Reveal…")
    told = await console.confirm(page, "Reveal 1 row")
    assert "Reveal the next 1 row of cup?" in told
    assert "0 of its rows are revealed" in told
    await page.wait(f"{SAID} === '1 row of cup revealed.'")
    assert (await board(backend.url))["revealed"] == 1
    assert (await page.evaluate(TABLES))["What the public sees"] == ["grace 1,520", "ada 30"]

    # Another operator reveals meanwhile. The board is not as this page shows it: nothing is sent.
    await backend.board("cup", title="Winter cup")
    await backend.report("linus", board_id="cup")
    await console.press(page, "Refresh")
    await page.wait(f"{TEXT}.includes('linus')")
    await backend.order("cup", "reveal", step=1)
    await console.press(page, "Reveal…")
    await console.confirm(page, "Reveal 1 row")
    await page.wait(f"{FAULT}.includes('Nothing was revealed')")
    assert (await board(backend.url))["revealed"] == 2

    await console.press(page, "Refresh")
    await page.wait(f"!{FAULT}")
    await console.press(page, "Unfreeze…")
    assert "can't be taken back" in await console.confirm(page, "Unfreeze")
    await page.wait(f"{SAID} === 'cup is no longer frozen.'")
    assert "frozenAt" not in await board(backend.url)


async def test_a_planned_freeze_a_period_and_the_end(page: Page, backend: Backend) -> None:
    """A freeze is planned in the reader's time, and dropped. A period ends. Closing needs the board's id, typed."""
    await backend.board("cup", period={"every": "week"})
    await backend.report("ada", board_id="cup")
    await page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
    await console.sign_in(page, backend.url, OPERATOR, "#boards/cup")
    await page.evaluate("document.querySelector('[name=at]').value = '2030-01-02T03:04:05', 0")
    await console.press(page, "Freeze…")
    assert "Jan 2, 2030, 3:04:05" in await console.confirm(page, "Freeze")
    await page.wait(f"{SAID} === 'cup will freeze.'")
    assert (await board(backend.url))["freezesAt"] == "2030-01-01T21:34:05.000Z"
    titles = "[...document.querySelectorAll('.facts time')].map((one) => one.title)"
    assert "2030-01-01 21:34:05 UTC" in await page.evaluate(titles)
    await console.press(page, "Drop the freeze…")
    await console.confirm(page, "Drop the freeze")
    await page.wait(f"{SAID} === 'The freeze of cup is dropped.'")
    assert "freezesAt" not in await board(backend.url)

    period = (await board(backend.url))["period"]
    await console.press(page, "End the period…")
    assert f"The period {period} ends now, with 1 user." in await console.confirm(page, "End the period")
    await page.wait(f"{SAID} === 'A new period of cup has begun.'")
    await console.press(page, "Ranking")
    await page.wait(f"{TEXT}.includes('The final ranking of {period}') && {TEXT}.includes('ada')")
    await console.press(page, "Close…")
    assert "can't be opened again" in await console.confirm(page, "Close for ever", word="cup")
    await page.wait(f"{SAID} === 'cup is closed.'")
    assert (await board(backend.url))["closed"] is True
    assert not {"Freeze…", "Close…"} & set(await page.evaluate(BUTTONS))


async def test_a_board_is_made_and_changed(page: Page, backend: Backend) -> None:
    """The dialog lists each difference; what the form does not show stays; another's change is not overwritten."""
    await console.sign_in(page, backend.url, OPERATOR)
    await console.press(page, "Make a board")
    await console.fill(page, "boardId", "laps")
    await console.fill(page, "title", "Laps")
    await console.fill(page, "rules", '{"score": "best", "order": "ascending", "keep_periods": 7, "half": 1}')
    points = "[...document.querySelectorAll('[name=points]')]"
    await page.evaluate(f"{points}[0].value = 'LAP', {points}[1].value = '1 to 90', 0")
    await console.press(page, "Make the board…")
    assert 'points: {"LAP":{"min":1,"max":90}}' in await console.confirm(page, "Make the board")
    await page.wait(f"{FAULT}.includes('Field: half')")
    await console.fill(page, "rules", '{"score": "best", "order": "ascending", "keep_periods": 7}')
    await console.press(page, "Make the board…")
    await console.confirm(page, "Make the board")
    await page.wait("location.hash === '#boards/laps'")
    await page.wait(f"{TEXT}.includes('best, ascending')")

    await console.press(page, "Change title, points and rules")
    await console.fill(page, "title", "Fast laps")
    await console.press(page, "Add a reason")
    await page.call("Input.insertText", text="FINISH")
    await page.evaluate(f"{points}.at(-1).value = '5', 0")
    await console.press(page, "Save the rules…")
    told = await console.confirm(page, "Change the rules")
    assert 'title: "Laps" → "Fast laps"' in told
    assert "points of FINISH: nothing → 5" in told
    assert "keep_periods" not in told
    await page.wait(f"{SAID} === 'The rules of laps are changed.'")
    rules = (await board(backend.url, "laps"))["rules"]
    assert (rules["title"], rules["keep_periods"]) == ("Fast laps", 7)
    assert rules["points"] == {"LAP": {"min": 1, "max": 90}, "FINISH": 5}

    await console.press(page, "Change title, points and rules")
    await backend.board("laps", **{**rules, "title": "Laps of others"})
    await console.fill(page, "title", "Mine")
    await console.press(page, "Save the rules…")
    await page.wait(f"{FAULT}.includes('Somebody has changed these rules meanwhile')")
    assert json.dumps((await board(backend.url, "laps"))["rules"]["title"]) == '"Laps of others"'
