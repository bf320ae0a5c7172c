"""The element on the page of another site: another port, the strictest policy, other languages and other colours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.browser import scripts
from tests.browser.backend import Backend
from tests.browser.cdp import Page
from tests.browser.host import Site, hosting
from tests.browser.test_page import LAPTOP, LIVE, PHONE, WALL, overflow, wait_rows
from tests.browser.test_season import save_for_eyes
from tests.e2e.leader import serving, token

TEN = {f"user-{number:02}": 12 - number for number in range(1, 11)}
ALL = "[...document.querySelectorAll('live-scoreboard')]"
EACH_LIVE = f"{ALL}.every((one) => one.state === 'live')"
ROWS_OF_EACH = f"{ALL}.map((one) => one.shadowRoot.querySelectorAll('tbody tr').length)"
PAPERS = f"{ALL}.map((one) => getComputedStyle(one.shadowRoot.querySelector('[part=board]')).backgroundColor)"


FULL_STOP = """
(section) => {
  const text = [...section.querySelectorAll("p")].map((one) => one.firstChild).find((one) => one?.data.endsWith("."));
  const lefts = [0, text.length - 2, text.length - 1].map((at) => {
    const range = document.createRange();
    range.setStart(text, at); range.setEnd(text, at + 1);
    return range.getBoundingClientRect().left;
  });
  const space = text.parentNode.getBoundingClientRect();
  return { isLast: lefts[0] < lefts[1] && lefts[1] < lefts[2], beginsRight: lefts[0] > space.left + 1 };
}
"""
"""Whether an English sentence ends with its full stop, and stands where those of the board's own direction do."""

AXE = """
axe.run(document, { resultTypes: ["violations"] }).then(({ violations, passes }) =>
  ({ passed: passes.length, faults: violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]) }))
"""
"""What axe-core finds, in shadow trees too: how many rules hold, and for each that does not, where."""


class Setting(NamedTuple):
    """A site, and a server that allows its origin and no other."""

    site: Site
    backend: Backend

    @property
    def url(self) -> str:
        return self.backend.url

    def show(self, *elements: str, root: str = "<html>") -> None:
        """Show these elements on the site's page."""
        self.site.show(self.url, *elements, root=root)


@pytest.fixture
async def setting(tmp_path: Path, config: Path) -> AsyncIterator[Setting]:
    """Nothing is shown yet."""
    async with hosting() as site:
        origins = {"SCOREBOARD_LIVE_ALLOWED_ORIGINS": json.dumps([site.origin])}
        async with serving(tmp_path / "data", config=config, extra=origins) as leader, Backend(leader.port) as backend:
            yield Setting(site, backend)


async def test_a_tag_on_the_page_of_another_site(page: Page, setting: Setting) -> None:
    """Under a policy without styles: it is live, styled, and moves. A site that is not allowed gets nothing."""
    await setting.backend.report_many({"ada": 2, "grace": 1})
    setting.show(f'<live-scoreboard src="{setting.url}" title="Our &lt;best&gt;"></live-scoreboard>')
    await page.open(setting.site.url)
    await page.wait(f"{LIVE} && board.channel === 'websocket'")
    await page.evaluate(
        "window.changes = [],"
        "document.body.addEventListener('scoreboard-change', (event) => changes.push(event.detail)), null"
    )
    await setting.backend.report("grace", reason="BONUS")
    await wait_rows(page, [("1", "grace", "1,510"), ("2", "ada", "20")])
    assert await page.evaluate("getComputedStyle(inside.querySelector('tbody tr')).display") == "grid"
    assert await page.evaluate("inside.querySelector('[part=title]').innerText") == "Our <best>"
    assert await page.evaluate(
        "changes.map(({ before, board }) => [before.seq < board.seq, board.entries[0].userId])"
    ) == [[True, "grace"]]
    assert await page.evaluate("[board.board.epoch, board.board.entries.length]") == [1, 2]

    other = setting.site.url.replace("127.0.0.1", "localhost")
    await page.open(other)
    assert await page.evaluate("customElements.get('live-scoreboard') === undefined")


async def test_several_elements_with_none_one_and_ten_rows(page: Page, setting: Setting) -> None:
    """Each has its own board, rows and colours. Without `src` the board is where the module came from."""
    await setting.backend.report_many(TEN)
    setting.show(
        '<live-scoreboard theme="light"></live-scoreboard>',
        '<live-scoreboard rows="1" theme="dark" title=""></live-scoreboard>',
        '<live-scoreboard rows="3" theme="transparent"></live-scoreboard>',
        '<live-scoreboard board="weekly"></live-scoreboard>',
        '<live-scoreboard rows="11"></live-scoreboard>',
    )
    await page.open(setting.site.url)
    await page.wait(f"{EACH_LIVE} && {ROWS_OF_EACH}.join() === '10,1,3,0,10'")
    assert await page.evaluate(PAPERS) == [
        "rgb(253, 253, 252)", "rgb(13, 16, 20)", "rgba(0, 0, 0, 0)", "rgb(253, 253, 252)", "rgb(253, 253, 252)",
    ]  # fmt: skip
    assert await page.evaluate(f"{ALL}[3].shadowRoot.getElementById('empty').innerText") == (
        "No scores yet\n\nThe first score shows up here by itself."
    )
    assert await page.evaluate(f"{ALL}[1].shadowRoot.getElementById('title').hidden")
    leads = "[part~=leads]", "[part~=second]", "[part~=third]"
    ranks = [await page.evaluate(f"inside.querySelector('{part} [part=rank]').innerText") for part in leads]
    assert ranks == ["1", "2", "3"]
    await page.evaluate(f"{ALL}[2].setAttribute('rows', '2'), {ALL}[0].setAttribute('board', 'weekly')")
    await page.wait(f"{EACH_LIVE} && {ROWS_OF_EACH}.join() === '0,1,2,0,10'")
    for name, size in (("element-phone", PHONE), ("element-wall", WALL), ("element", LAPTOP)):
        await page.show_as(*size)
        assert await overflow(page) == 0
        await save_for_eyes(page, name)


async def test_right_to_left_in_the_language_of_the_reader(page: Page, setting: Setting) -> None:
    """`lang` turns the board round and writes its numbers; `dir` of the page does, too, in the reader's numbers."""
    await setting.backend.report("ada", reason="BONUS")
    await setting.backend.name("ada", "مريم")
    setting.show(
        '<live-scoreboard lang="ar-EG"></live-scoreboard>', "<live-scoreboard></live-scoreboard>", root="<html dir=rtl>"
    )
    await page.open(setting.site.url)
    await page.wait(f"{EACH_LIVE} && {ROWS_OF_EACH}.join() === '1,1'")
    await page.wait(
        f"{ALL}.map((one) => one.shadowRoot.querySelector('[part=score]').innerText).join() === '١٬٥٠٠,1,500'"
    )
    for number in (0, 1):
        left = [
            await page.evaluate(
                f"{ALL}[{number}].shadowRoot.querySelector('[part={part}]').getBoundingClientRect().left"
            )
            for part in ("score", "name", "rank")
        ]
        assert left == sorted(left)
    await page.evaluate(f"{ALL}[0].words = {{ live: 'مباشر', top: 'أفضل {{0}}' }}")
    assert await page.evaluate("inside.getElementById('state').innerText") == "مباشر"
    assert await page.evaluate("inside.querySelector('table').ariaLabel") == "أفضل 10"
    await page.evaluate(f"{ALL}[0].lang = 'no such language'")
    assert await page.evaluate("inside.querySelector('[part=score]').innerText") == "1,500"
    await save_for_eyes(page, "element-rtl")
    await page.evaluate(f"{ALL}[0].lang = 'ar', {ALL}[0].words = {{}}, {ALL}[0].setAttribute('board', 'nowhere')")
    await page.evaluate(f"{ALL}[1].setAttribute('board', 'weekly')")
    await page.wait(f"{ALL}.map((one) => one.state).join() === 'refused,live'")
    for number, sentence in ((0, "notice"), (1, "empty")):
        found = await page.evaluate(f"({FULL_STOP})({ALL}[{number}].shadowRoot.querySelector('[part={sentence}]'))")
        assert found == {"isLast": True, "beginsRight": True}
    await save_for_eyes(page, "element-rtl-sentences")


async def test_where_the_websocket_is_blocked_events_come(page: Page, setting: Setting) -> None:
    """From another site, too. Once the WebSocket gets through again, it carries the board again."""
    await page.before_scripts(scripts.FAST_CLOCK)
    await page.before_scripts(scripts.NO_LINKS)
    await setting.backend.report("ada")
    setting.show("<live-scoreboard></live-scoreboard>")
    await page.open(setting.site.url)
    await page.wait(f"{LIVE} && board.channel === 'events'")
    await setting.backend.report("grace", reason="BONUS")
    await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])
    await page.evaluate("window.WebSocket = Reached, null")
    await page.wait(f"{LIVE} && board.channel === 'websocket'")
    await setting.backend.report("ada", reason="BONUS")
    await wait_rows(page, [("1", "ada", "1,510"), ("2", "grace", "1,500")])


async def test_a_callback_renews_the_token(page: Page, tmp_path: Path, config: Path) -> None:
    """A private board, read from another site. The token expires: a new one is asked for, and nothing is refused."""
    at_once = {"server.bounds.LEASE_GRACE_SECONDS": 0, "server.bounds.TOKEN_LEEWAY_SECONDS": 0}
    async with hosting() as site:
        extra = {"SCOREBOARD_AUTH_PUBLIC_READS": "false", "SCOREBOARD_LIVE_ALLOWED_ORIGINS": json.dumps([site.origin])}
        async with (
            serving(tmp_path / "data", config=config, extra=extra, constants=at_once) as leader,
            Backend(leader.port) as backend,
        ):
            await backend.report("ada")
            site.show(backend.url, "<live-scoreboard></live-scoreboard>")
            await page.open(site.url)
            await page.wait("board.state === 'refused'")
            assert "This board is not public." in await page.evaluate("inside.getElementById('notice').innerText")
            tokens = [token("scores:read", seconds=8), token("scores:read")]
            await page.evaluate(
                "window.states = [],"
                "board.addEventListener('scoreboard-state', ({ detail }) => states.push(detail.state)),"
                f"window.left = {json.dumps(tokens)}, board.token = async () => left.shift(), null"
            )
            await page.wait(f"{LIVE} && left.length === 1")
            await page.wait(f"{LIVE} && left.length === 0")
            await backend.report("grace", reason="BONUS")
            await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])
            assert "refused" not in await page.evaluate("states")


async def test_an_element_that_is_taken_out_lets_its_link_go(page: Page, setting: Setting) -> None:
    """One that is only moved keeps it, and one that comes back is live again. A token may be set before the module is
    there.
    """
    await page.before_scripts(scripts.WATCHED_LINKS)
    setting.show("<live-scoreboard></live-scoreboard>", "<main></main>")
    await page.open(setting.site.url)
    await page.wait(LIVE)
    await page.evaluate("window.one = board, document.querySelector('main').append(one), null")
    assert await page.evaluate("[links.length, one.state]") == [1, "live"]
    await page.evaluate("one.remove()")
    await page.wait("one.state === 'paused' && links[0].readyState === WebSocket.CLOSED")
    await page.evaluate("document.body.append(one)")
    await page.wait(f"{LIVE} && links.length === 2")


async def test_after_a_sleep_it_is_right_at_once(page: Page, setting: Setting) -> None:
    """The machine slept and its link is dead: the board asks as soon as it is awake, and makes a new link."""
    await page.before_scripts(scripts.WATCHED_LINKS)
    await setting.backend.report("ada")
    setting.show("<live-scoreboard></live-scoreboard>")
    await page.open(setting.site.url)
    await page.wait(LIVE)
    await page.evaluate("deaf = true, links[0].addEventListener('close', () => { deaf = false; })")
    await setting.backend.report("grace", reason="BONUS")
    await page.evaluate("window.realNow = Date.now, Date.now = () => realNow() + 3_600_000, null")
    await wait_rows(page, [("1", "grace", "1,500"), ("2", "ada", "10")])
    await page.wait(f"links.length === 2 && {LIVE}")


async def test_scores_count_up_and_end_where_they_are(page: Page, setting: Setting) -> None:
    """On the way there are numbers between; with less motion there are none."""
    for motion in ("no-preference", "reduce"):
        await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": motion}])
        setting.show("<live-scoreboard></live-scoreboard>")
        await setting.backend.report("ada", reason="BONUS")
        await page.open(setting.site.url)
        await page.wait(LIVE)
        await page.wait("inside.querySelectorAll('tbody tr').length === 1")
        before = await page.evaluate("board.board.entries[0].score")
        await page.evaluate(
            "window.seen = [], new MutationObserver(() => seen.push(Number(inside.querySelector('[part=score]')"
            ".lastElementChild.textContent.replace(',', '')))).observe(inside.querySelector('[part=score]'),"
            "{ subtree: true, childList: true, characterData: true }), null"
        )
        await setting.backend.report("ada", reason="BONUS")
        await page.wait(f"seen.at(-1) === {before + 1500}")
        between = [number for number in await page.evaluate("seen") if before < number < before + 1500]
        assert bool(between) is (motion == "no-preference")


async def test_axe_finds_no_fault(page: Page, setting: Setting) -> None:
    """In any state: rows, an empty board, a refusal, right to left, light and dark. The page `/` as well."""
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    await page.before_scripts(axe)
    await setting.backend.report_many(TEN)
    setting.show(
        "<main><h1>A site</h1>",
        '<live-scoreboard theme="light" title="Light"></live-scoreboard>',
        '<live-scoreboard theme="dark" title="Dark" lang="he" rows="2"></live-scoreboard>',
        '<live-scoreboard theme="light" board="weekly"></live-scoreboard>',
        '<live-scoreboard theme="dark" board="nowhere"></live-scoreboard></main>',
        root='<html lang="en">',
    )
    for url, states in ((setting.site.url, "live,live,live,refused"), (f"{setting.url}/", "live")):
        await page.open(url)
        await page.wait(f"{ALL}.map((one) => one.state).join() === '{states}'")
        await page.wait(f"{ROWS_OF_EACH}[0] === 10")
        found = await page.evaluate(AXE)
        assert found["faults"] == []
        assert found["passed"] > 10
    await page.evaluate("board.after(document.createElement('img'))")
    assert [fault[0] for fault in (await page.evaluate(AXE))["faults"]] == ["image-alt"]
