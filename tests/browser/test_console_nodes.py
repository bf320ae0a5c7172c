"""Nodes in the console: figures, replicas and their lag, a replica's own console, the switch of the live channel."""

from __future__ import annotations

from pathlib import Path

from tests.browser import cdp, console, scripts
from tests.browser.backend import Backend
from tests.browser.console import BUTTONS, FAULT, TEXT
from tests.browser.prefix import below_prefix
from tests.browser.test_season import save_for_eyes
from tests.e2e.leader import Leader, following, token

FOLLOWERS = "[...document.querySelectorAll('#nodes tbody tr')].map((row) => row.innerText.split(/\\s*\\t\\s*/))"


async def test_a_node(page: cdp.Page, backend: Backend) -> None:
    """Health and figures come from /readyz and /metrics, again and again; a chart says in words what it shows. The live
    channel goes off and on, with a dialog that says what that does. All of it works below a path of a proxy.
    """
    await page.before_scripts(scripts.FAST_CLOCK)
    await backend.report_many({"ada": 3})
    await console.sign_in(page, backend.url, token("admin"), "#nodes")
    await page.wait(f"{TEXT}.includes('ready') && {TEXT}.includes('leader')")
    charts = "[...document.querySelectorAll('.chart svg')].map((one) => one.ariaLabel)"
    await page.wait(f"{charts}.some((text) => /^Requests: [0-9.]+\\/s now, at most/.test(text))")
    await page.wait(f"{charts}.some((text) => /^Memory: [0-9.]+ MiB now/.test(text))")
    await backend.report_many({"ada": 4})
    seq = (await console.answer(backend.url, "/readyz"))["seq"]
    await page.wait(f"/Event\\s+{seq}\\b/.test({TEXT})")
    await console.press(page, "Switch the live channel off…")
    assert "All viewers of all nodes are closed" in await console.confirm(page, "Switch it off")
    await page.wait(f"{BUTTONS}.includes('Switch the live channel on…')")
    assert (await console.answer(backend.url, "/flags/live", token("admin")))["enabled"] is False
    await console.press(page, "Switch the live channel on…")
    await console.confirm(page, "Switch it on")
    await page.wait(f"{BUTTONS}.includes('Switch the live channel off…')")
    await page.open("about:blank")
    async with below_prefix("/board", int(backend.url.rpartition(":")[2])) as outside:
        await console.sign_in(page, outside.rstrip("/"), token("log:read"), "#nodes")
        await page.wait(f"{TEXT}.includes('Replicas that follow it')")
        assert "Live channel" not in await page.evaluate(TEXT)


async def test_replicas_and_their_lag(
    page: cdp.Page, tmp_path: Path, config: Path, leader: Leader, backend: Backend
) -> None:
    """The leader's console lists a replica with its lag. The replica's own console says what it is, and only reads."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await backend.report("ada")
    await console.sign_in(page, backend.url, token("admin"), "#nodes")
    await page.wait(f"{TEXT}.includes('None has a link now.')")
    async with following(tmp_path, "replica", leader.url, "--config", str(config)) as replica:
        await page.wait(f"{FOLLOWERS}.length === 1 && {FOLLOWERS}[0][2] === '0'")
        assert (await page.evaluate(FOLLOWERS))[0][:3] == ["127.0.0.1", "all boards", "0"]
        await save_for_eyes(page, "console-nodes")
        await console.sign_in(page, replica.url, token("admin"), "#nodes")
        await page.wait(f"/Node\\s+replica/.test({TEXT}) && /Records behind\\s+0/.test({TEXT})")
        await console.show(page, "#boards/main")
        await page.wait(f"{TEXT}.includes('ada')")
        await console.press(page, "Freeze…")
        await console.confirm(page, "Freeze")
        await page.wait(f"{FAULT}.includes('NOT_LEADER')")
    assert "frozenAt" not in await console.answer(backend.url, "/boards/main")


async def test_a_server_that_is_gone_and_comes_back(page: cdp.Page, leader: Leader) -> None:
    """A request without an answer is told as one, and the page goes on by itself."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await console.sign_in(page, leader.url, token("boards:write"), "#boards/main")
    await console.press(page, "Freeze…")
    await page.wait(f"{console.DIALOG}?.includes('Freeze main?')")
    await leader.kill()
    await console.confirm(page, "Freeze")
    await page.wait(f"{FAULT}.includes('It may have done it: look before you try again.')")
    await console.show(page, "#nodes")
    await page.wait(f"{FAULT}.includes('The server did not answer.')")
