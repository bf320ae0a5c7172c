"""What an operator does in the console: sign in, type, press, confirm."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.browser.cdp import Page

TEXT = "document.querySelector('#content')?.innerText"
SAID = "document.getElementById('said').textContent"
PARTS = "[...document.querySelectorAll('#parts a')].map((link) => link.textContent)"
BUTTONS = "[...document.querySelectorAll('#content button')].map((button) => button.textContent)"
FAULT = "[...document.querySelectorAll('#content .fault')].map((fault) => fault.innerText).join('')"
STATE = "document.documentElement.dataset.state"
DIALOG = "document.querySelector('dialog[open]')?.innerText"

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}


async def answer(url: str, path: str, token: str = "") -> dict[str, Any]:
    """What the server at `url` says of a path, to whoever has this token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
        found: dict[str, Any] = (await http.get(path)).json()
    return found


async def paste(page: Page, token: str) -> None:
    """Put a token into the form that takes one, and send it."""
    await page.wait("!document.getElementById('token-form').hidden")
    await page.evaluate("document.getElementById('token').focus(), 0")
    await page.call("Input.insertText", text=token)
    await page.evaluate("document.querySelector('#token-form [type=submit]').click(), 0")


async def sign_in(page: Page, url: str, token: str, part: str = "") -> None:
    """Open the console, at a part of it, with a token."""
    await page.open(f"{url}/console{part}")
    await paste(page, token)
    await ready(page)


async def ready(page: Page) -> None:
    """Wait until the part that is shown has its answers."""
    await page.wait("document.querySelector('#content section:not([aria-busy])')")


async def show(page: Page, part: str) -> None:
    """Go to a part."""
    await page.evaluate(f"location.hash = {json.dumps(part)}, 0")
    await page.wait(f"document.querySelector('#parts [aria-current]').hash === {json.dumps(part.partition('/')[0])}")
    await ready(page)


async def fill(page: Page, name: str, text: str) -> None:
    """Type into the visible field of this name, after emptying it."""
    found = f"[...document.querySelectorAll('[name={name}]')].find((one) => one.checkVisibility())"
    await page.wait(f"((one) => one && (one.focus(), one.select(), true))({found})")
    await page.call("Input.insertText", text=text)


async def press(page: Page, text: str) -> None:
    """Press the button or the summary with this text, once it is there and free."""
    found = (
        "[...document.querySelectorAll('#content button, #content summary, #content label')]"
        ".filter((one) => one.checkVisibility() && one.ariaDisabled !== 'true')"
        f".find((one) => one.textContent === {json.dumps(text)})"
    )
    await page.wait(f"((one) => one && (one.click(), true))({found})")


async def confirm(page: Page, verb: str, *, word: str = "") -> str:
    """Agree in the dialog, whose button says `verb`; gives what it told."""
    await page.wait(f"{DIALOG}?.includes({json.dumps(verb)})")
    told: str = await page.evaluate(DIALOG)
    if word:
        assert await page.evaluate("document.getElementById('dialog-yes').disabled")
        await page.call("Input.insertText", text=word)
    await page.evaluate("document.getElementById('dialog-yes').click(), 0")
    return told


async def key(page: Page, name: str) -> None:
    """Press a key and let it go."""
    text = {"text": "\r"} if name == "Enter" else {"text": name} if len(name) == 1 else {}
    for kind in ("keyDown", "keyUp"):
        code = "Space" if name == " " else name
        await page.call(
            "Input.dispatchKeyEvent", type=kind, key=name, code=code, windowsVirtualKeyCode=KEYS[name], **text
        )
