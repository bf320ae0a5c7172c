"""The console: what a token shows, how it ends and is renewed, names that are only text, the keyboard, every screen."""

from __future__ import annotations

import json
from importlib import resources

from tests.browser import console, scripts
from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.console import BUTTONS, FAULT, PARTS, SAID, STATE, TEXT
from tests.browser.test_element import AXE
from tests.browser.test_page import LAPTOP, PHONE, SMALL_PHONE, overflow
from tests.browser.test_season import save_for_eyes
from tests.e2e.leader import token

ALL_PARTS = ["Boards", "Users", "Corrections", "Reviews", "Nodes"]
HOSTILE = '<img src=x onerror="window.owned = 1">'


async def test_a_token_shows_what_it_allows(page: Page, backend: Backend) -> None:
    """Few scopes: few parts, and no button that the server would refuse. The token is in no address and no cookie."""
    await backend.report("ada")
    for scopes, parts in (
        (["scores:read"], ["Boards", "Users", "Nodes"]),
        (["scores:review"], ["Reviews", "Nodes"]),
        (["users:erase", "scores:correct"], ["Users", "Corrections", "Nodes"]),
        (["log:read"], ["Nodes"]),
        (["admin"], ALL_PARTS),
    ):
        await console.sign_in(page, backend.url, token(*scopes))
        assert await page.evaluate(PARTS) == parts
        await page.evaluate("document.getElementById('sign-out').click(), 0")
        await page.wait(f"{STATE} === 'signed-out'")
        assert await page.evaluate("document.getElementById('content').innerText + sessionStorage.length") == "0"
        await page.open("about:blank")

    await console.sign_in(page, backend.url, token("scores:read"), "#boards/main")
    assert await page.evaluate(BUTTONS) == ["Refresh"]
    assert '"boardId":"main"' in await page.evaluate("document.querySelector('pre').textContent")
    await console.show(page, "#users/ada")
    assert await page.evaluate(BUTTONS) == ["Show the ledger", "Older entries"]
    assert await page.evaluate("location.href + document.cookie") == f"{backend.url}/console#users/ada"
    await page.call("Page.reload")
    await page.wait(f"{TEXT}.includes('Ledger of ada')")  # the tab still has the token

    # The scopes of this one are names of a provider. Whether the server maps them, only the server knows.
    await page.evaluate("document.getElementById('renew').click(), 0")
    await console.paste(page, token("board-operators"))
    await page.wait(f"{PARTS}.join() === 'Nodes'")
    await console.press(page, "show all parts")
    await page.wait(f"{PARTS}.length === {len(ALL_PARTS)}")
    await console.show(page, "#reviews")
    await page.wait(f"{FAULT}.includes('UNAUTHORIZED')")


async def test_a_token_that_ends_is_renewed_by_pasting(page: Page, backend: Backend) -> None:
    """What is no token is told. An expired one: the server's sentence, and what was typed stays for the new one."""
    await page.open(f"{backend.url}/console")
    await console.paste(page, "no token")
    await page.wait("document.getElementById('token-fault').innerText.startsWith('This is not a JWT')")
    await page.evaluate("document.getElementById('token').value = '', 0")
    await console.paste(page, f"Bearer {token('scores:correct', seconds=-100)}\n")
    await console.ready(page)
    assert await page.evaluate(STATE) == "expired"
    assert "expired" in await page.evaluate("document.getElementById('validity').innerText")
    await console.fill(page, "actionIds", "nothing-yet")
    await console.fill(page, "reason", "a mistake")
    await console.press(page, "Preview")
    await page.wait("document.getElementById('token-fault').innerText.includes('Paste a new token')")
    assert "UNAUTHENTICATED" in await page.evaluate(FAULT)

    await console.paste(page, token("scores:correct"))
    await page.wait(f"{STATE} === 'signed-in' && {SAID} === 'The new token is in use.'")
    assert await page.evaluate("document.querySelector('[name=reason]').value") == "a mistake"
    await console.press(page, "Preview")
    await page.wait(f"{FAULT}.includes('was never applied') && {FAULT}.includes('Field: actionIds')")
    assert await page.evaluate("document.activeElement.name + document.activeElement.ariaInvalid") == "actionIdstrue"


async def test_names_stay_text(page: Page, backend: Backend) -> None:
    """Markup as an id, a name, a reason and a title: it is read, and it does nothing. Ids that look like paths work."""
    await backend.board("cup", title=HOSTILE)
    for user_id in (HOSTILE, "a/b", ".."):
        await backend.report(user_id, board_id="cup")
        await backend.name(user_id, f"{HOSTILE} {user_id}") if user_id != ".." else None
    await console.sign_in(page, backend.url, token("admin"))
    await page.wait(f"{TEXT}.includes({json.dumps(HOSTILE)})")
    await console.show(page, "#boards/cup")
    assert (await page.evaluate(TEXT)).count(HOSTILE) == 5
    for user_id in (HOSTILE, "a/b", ".."):
        await console.show(page, "#users")
        await console.fill(page, "userId", user_id)
        await console.press(page, "Show the ledger")
        await page.wait(f"{TEXT}.includes({json.dumps(f'Ledger of {user_id}, the newest first')})")
    await console.press(page, "Erase this user")
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert await page.evaluate("'owned' in window") is False


async def test_the_keyboard_is_enough(page: Page, backend: Backend) -> None:
    """From the first key to an ended period: Tab, Enter and Escape only, and what has the focus is seen."""
    await backend.report("ada")
    await page.open(f"{backend.url}/console")
    await page.call("Input.insertText", text=token("boards:write"))  # the field has the focus
    await console.key(page, "Enter")
    await console.ready(page)
    focused = "(document.activeElement.innerText || document.activeElement.tagName)"

    ring = "document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle"

    async def walk_to(text: str) -> None:
        for _ in range(40):
            if await page.evaluate(focused) == text:
                break
            await console.key(page, "Tab")
            assert await page.evaluate(ring) != "none", await page.evaluate("document.activeElement.outerHTML")
        assert await page.evaluate(focused) == text

    await page.wait(f"{focused} === 'Boards' && document.activeElement.tagName === 'H2'")
    await walk_to("main")
    await console.key(page, "Enter")
    await page.wait(f"{TEXT}.includes('All boards')")
    await console.ready(page)
    await walk_to("End the period…")
    await console.key(page, "Enter")
    await page.wait(f"{console.DIALOG}?.includes('can\\'t be taken back')")
    await console.key(page, "Escape")
    free = "document.activeElement.ariaDisabled !== 'true'"  # the browser gives the focus back before the page knows
    await page.wait(f"!{console.DIALOG} && {focused} === 'End the period…' && {free}")
    await console.key(page, "Enter")
    await page.wait(f"{focused} === 'Cancel'")
    await console.key(page, "Tab")
    await console.key(page, "Enter")
    await page.wait(f"{SAID} === 'A new period of main has begun.'")
    assert await page.evaluate(focused) == "End the period…"
    ended = (await console.answer(backend.url, "/boards/main/periods"))["periods"]
    assert [period["count"] for period in ended] == [1]


async def test_every_screen_in_light_and_dark(page: Page, backend: Backend) -> None:
    """No part scrolls sideways on any screen, every text has contrast to its background, and axe finds no fault."""
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    await page.before_scripts(axe)
    await backend.board("cup", title="Winter cup", period={"every": "week"}, watch={"growth_per_minute": 15})
    await backend.report_many({"W" * 90: 2, "ada": 3}, board_id="cup")
    await backend.order("cup", "freeze")
    await console.sign_in(page, backend.url, token("admin"))
    for part in ("#boards", "#boards/cup", f"#users/{'W' * 90}", "#corrections", "#reviews", "#nodes"):
        await console.show(page, part)
        await page.evaluate("document.querySelectorAll('#content details').forEach((one) => { one.open = true; })")
        assert (await page.evaluate(AXE))["faults"] == []
        for dark in (False, True):
            await page.show_as(*LAPTOP, dark=dark)
            assert await page.evaluate(scripts.WORST_CONTRAST) >= 4.5, part
            for size in (SMALL_PHONE, PHONE, LAPTOP):
                await page.show_as(*size, dark=dark)
                assert await overflow(page) == 0, (part, size)
                if size == PHONE:
                    await save_for_eyes(page, f"console-{part[1:8].replace('/', '-')}-{'dark' if dark else 'light'}")
