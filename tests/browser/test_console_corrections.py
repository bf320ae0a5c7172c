"""Corrections in the console: the ledger, reversals with their preview, reviews, erasure."""

from __future__ import annotations

from typing import Any

from tests.browser import console
from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.console import BUTTONS, DIALOG, FAULT, SAID, TEXT
from tests.browser.test_season import save_for_eyes
from tests.e2e.leader import token

REFEREE = token("scores:read", "users:write", "scores:correct", "scores:review", "users:erase", sub="referee")


async def read(url: str, path: str) -> dict[str, Any]:
    """What the server answers a referee."""
    return await console.answer(url, path, REFEREE)


async def test_the_ledger_leads_to_a_reversal_and_back(page: Page, backend: Backend) -> None:
    """Pages of what a user did; two chosen actions are taken back after a preview; then that reversal is reversed."""
    await backend.report_many({"ada": 60, "ben": 1})
    await console.sign_in(page, backend.url, REFEREE, "#users/ada")
    await page.wait(f"{TEXT}.includes('50 entries shown.')")
    await console.press(page, "Older entries")
    await page.wait(f"{TEXT}.includes('60 entries shown. That is all.')")
    times = "[...document.querySelectorAll('tbody time')].every((one) => / UTC$/.test(one.title))"
    assert await page.evaluate(times)
    await page.evaluate("[...document.querySelectorAll('[type=checkbox]')].slice(0, 2).map((box) => box.click()), 0")
    await console.press(page, "Take the chosen back…")

    await console.fill(page, "reason", "twice")
    await console.press(page, "Preview")
    await page.wait(f"{TEXT}.includes('2 actions of 1 user on 1 board or period.')")
    assert (await read(backend.url, "/scores/ada"))["score"] == 600
    shown = await page.evaluate("[...document.querySelectorAll('#preview table')][0].tBodies[0].innerText")
    assert shown.split() == ["ada", "600", "580", "-20"]
    reversal_id = await page.evaluate("document.querySelector('#preview .id').textContent")
    await save_for_eyes(page, "console-preview")
    await console.press(page, "Take them back: 2 actions")
    await page.wait(f"{SAID} === 'The actions are taken back.'")
    assert (await read(backend.url, "/scores/ada"))["score"] == 580
    logged = await read(backend.url, f"/reversals/{reversal_id}")
    assert (logged["reason"], logged["caller"], logged["actions"]) == ("twice", "referee", 2)

    await console.press(page, "Take this reversal back…")
    await console.fill(page, "reason", "they were fine")
    await console.press(page, "Preview")
    await console.press(page, "Let them count again: 2 actions")
    await page.wait(f"{SAID} === 'The actions count again.'")
    assert (await read(backend.url, "/scores/ada"))["score"] == 600
    await console.show(page, "#users/ada")
    assert "counts again" in await page.evaluate(TEXT)


async def test_a_reversal_takes_back_what_its_preview_showed(page: Page, backend: Backend) -> None:
    """All of a user from an event on. What comes after the preview stays; a change of the form drops the preview."""
    await backend.report_many({"ada": 3})
    first = (await read(backend.url, "/scores/ada/history"))["entries"][-1]["seq"]
    await console.sign_in(page, backend.url, REFEREE, "#corrections")
    await console.press(page, "All of a user")
    await console.fill(page, "userId", "ada")
    await console.fill(page, "reason", "bot")
    await console.fill(page, "from", "yesterday")
    await console.press(page, "Preview")
    await page.wait(f"{FAULT}.includes('Field: from')")
    await console.fill(page, "from", str(first + 1))
    await console.press(page, "Preview")
    await page.wait(f"{TEXT}.includes('2 actions of 1 user')")
    before = await page.evaluate("document.querySelector('#preview .id').textContent")
    await console.fill(page, "reason", "a bot")
    assert await page.evaluate("document.getElementById('preview').innerText") == ""
    await console.press(page, "Preview")
    await page.wait(f"{TEXT}.includes('2 actions of 1 user')")
    assert await page.evaluate("document.querySelector('#preview .id').textContent") != before
    await backend.report("ada")
    await console.press(page, "Take them back: 2 actions")
    await page.wait(f"{SAID} === 'The actions are taken back.'")
    assert (await read(backend.url, "/scores/ada"))["score"] == 20

    await console.press(page, "All that a caller sent")
    await console.fill(page, "caller", "nobody")
    await console.press(page, "Preview")
    await page.wait(f"{FAULT} || {TEXT}.includes('no such action counts')")


async def test_reviews_are_accepted_and_reversed(page: Page, backend: Backend) -> None:
    """The dialog shows what a decision would change, and only then it is made."""
    await backend.board("cup", watch={"growth_per_minute": 15, "action": "hold"})
    await backend.report_many({"ada": 4, "ben": 3}, board_id="cup")
    await console.sign_in(page, backend.url, REFEREE, "#reviews")
    await page.wait(f"{TEXT}.includes('2 reviews shown, 2 open')")
    order = "document.querySelector('[aria-label=\"{} on cup\"]').click(), 0"
    await page.evaluate(order.format("Accept ada"))
    await page.wait(f"{DIALOG}?.includes('What is held counts')")
    assert (await read(backend.url, "/scores/ada?boardId=cup"))["score"] == 20
    assert "2 actions of 1 user" in await page.evaluate(DIALOG)
    await console.fill(page, "note", "checked")
    await save_for_eyes(page, "console-review")
    await console.confirm(page, "Accept")
    await page.wait(f"{SAID} === 'ada is accepted.'")
    assert (await read(backend.url, "/scores/ada?boardId=cup"))["score"] == 40
    await page.evaluate(order.format("Reverse ben"))
    await page.wait(f"{DIALOG}?.includes('Take back what ben did on cup?')")
    await console.confirm(page, "Take it back")
    await page.wait(f"{SAID}.startsWith('Taken back')")
    decided = (await read(backend.url, "/reviews?state=all"))["reviews"]
    states = [(review["state"], review.get("note", "")) for review in decided]
    assert states == [("accepted", "checked"), ("reversed", "")]
    await page.wait(f"{TEXT}.includes('0 reviews shown, 0 open')")


async def test_a_user_is_changed_and_erased(page: Page, backend: Backend) -> None:
    """A bad name can be taken away. Before an erasure the dialog names the user and what goes. Cancelled, nothing
    happens. A token that only erases sees no ledger.
    """
    await backend.report_many({"ada": 2, "ben": 1})
    await backend.name("ada", "Bad name")
    await console.sign_in(page, backend.url, REFEREE, "#users/ada")
    await console.press(page, "Change the name, or hide the user")
    await console.fill(page, "displayName", "")
    await page.evaluate("document.querySelector('[name=active]').click(), 0")
    await console.press(page, "Save…")
    told = await console.confirm(page, "Change the user")
    assert 'displayName: "Bad name" → nothing' in told
    assert "active: true → false" in told
    await page.wait(f"{SAID} === 'The user is changed.'")
    assert (await read(backend.url, "/users/ada/data"))["registered"] == {"displayName": None, "active": False}
    await console.press(page, "Erase this user")
    await console.press(page, "Erase ada…")
    await page.wait(f"{DIALOG}?.includes('It is on 1 board now (main)')")
    await page.evaluate("document.getElementById('dialog-no').click(), 0")
    await page.wait(f"!{DIALOG}")
    assert (await read(backend.url, "/scores/ada"))["score"] == 20
    await console.press(page, "Erase ada…")
    assert "This can't be undone." in await console.confirm(page, "Erase for ever", word="ada")
    await page.wait(f"{SAID} === 'The user is erased.' && {TEXT}.includes('off all boards, with 2 actions')")
    assert (await read(backend.url, "/scores/ada"))["error"]["code"] == "NOT_FOUND"

    await page.evaluate("document.getElementById('sign-out').click(), 0")
    await console.paste(page, token("users:erase"))
    await console.ready(page)
    await console.fill(page, "userId", "ben")
    await console.press(page, "Choose this user")
    await page.wait(f"{TEXT}.includes('Erase this user')")
    assert await page.evaluate(BUTTONS) == ["Choose this user", "Erase ben…"]
