"""A small Chrome DevTools Protocol client: one WebSocket to the browser, a session per page.

How it works: every command carries a number, its answer carries the same one, and the sender waits for that number.
Messages without a number are events; a page keeps the events that tell of a fault in it. A test waits for a JavaScript
condition, which is evaluated again and again until it holds or a deadline has passed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

ANSWER_SECONDS_MAX = 60.0
CONDITION_SECONDS_MAX = 60.0
ASK_AGAIN_SECONDS = 0.03
MESSAGE_BYTES_MAX = 64 * 2**20  # a screenshot comes as one message


class DevToolsError(Exception):
    """The browser refused a command, or JavaScript that a test sent has thrown."""


class Browser:
    """The connection. Made by `connected`, which also reads it."""

    def __init__(self, link: WebSocketConnection) -> None:
        self._link = link
        self._last_number = 0
        self._answers: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send one command and give its result."""
        self._last_number += 1
        number = self._last_number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._answers[number] = send
        try:
            with trio.fail_after(ANSWER_SECONDS_MAX):
                await self._link.send_message(json.dumps(message))
                answer = await receive.receive()
        finally:
            del self._answers[number]
        if "error" in answer:
            raise DevToolsError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    @asynccontextmanager
    async def new_page(self) -> AsyncIterator[Page]:
        """Open a page in a context of its own: no cookies, no cache and no storage of another page."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = (await self.call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            yield page
        finally:
            del self._pages[session]
            with trio.CancelScope(shield=True):
                await self.call("Target.disposeBrowserContext", browserContextId=context)

    async def read(self) -> None:
        """Hand out answers and events until the connection ends."""
        while True:
            try:
                message = json.loads(await self._link.get_message())
            except ConnectionClosed:
                return
            if "id" in message:
                waiting = self._answers.get(message["id"])
                if waiting is not None:
                    waiting.send_nowait(message)
            elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                page.take_event(message["method"], message["params"])


class Page:
    """One tab. `faults` holds uncaught errors and violations of the content security policy, in order."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.faults: list[str] = []

    def take_event(self, method: str, parameters: dict[str, Any]) -> None:
        """Keep an event that tells of a fault. A failed request is no fault: tests stop servers on purpose."""
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["source"] == "security":
            self.faults.append(parameters["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return await self._browser.call(method, self._session, **parameters)

    async def before_scripts(self, script: str) -> None:
        """Run `script` in every document that this page opens from now on, before the document's own scripts."""
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    async def open(self, url: str) -> None:
        """Go to `url` and wait until the document is there; raise when it is not."""
        answer = await self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise DevToolsError(f"{url}: {answer['errorText']}")
        await self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise; it must be expressible as JSON."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise DevToolsError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    async def wait(self, condition: str) -> None:
        """Return when the JavaScript `condition` holds; fail with what the page shows when it does not in time."""
        with trio.move_on_after(CONDITION_SECONDS_MAX):
            while not await self.evaluate(f"Boolean({condition})"):  # noqa: ASYNC110  # a page has no event to wait for
                await trio.sleep(ASK_AGAIN_SECONDS)
            return
        seen = await self.evaluate(
            "[window.board?.state ?? document.documentElement.dataset.state, document.body.innerText,"
            " window.board?.shadowRoot?.textContent].join('\\n')"
        )
        raise AssertionError(f"never came true: {condition}\nfaults: {self.faults}\nthe page shows: {seen}")

    async def show_as(self, width: int, height: int, *, dark: bool = False, touch: bool = False) -> None:
        """Take the size of a screen, and a colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch
        )
        scheme = "dark" if dark else "light"
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def save_screenshot(self, path: Path) -> None:
        """Write what the page looks like now to `path`, as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        await trio.Path(path).write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Browser]:
    """Connect to a browser's DevTools."""
    async with open_websocket_url(address, max_message_size=MESSAGE_BYTES_MAX) as link, trio.open_nursery() as nursery:
        browser = Browser(link)
        nursery.start_soon(browser.read)
        yield browser
        nursery.cancel_scope.cancel()
