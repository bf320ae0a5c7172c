"""The live page as people see it: moving rows, names that are only text, every screen, light and dark."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.browser import scripts
from tests.browser.backend import Backend
from tests.browser.cdp import Page

LIVE = "board.state === 'live'"

PHONE = (390, 844)
SMALL_PHONE = (320, 568)
LANDSCAPE = (844, 390)
LAPTOP = (1280, 800)
WALL = (1920, 1080)
LARGE_WALL = (3840, 2160)

HOSTILE_NAMES = {
    "markup": '<img src=x onerror="window.owned = true"><script>window.owned = true</script>',
    "long": "W" * 128,
    "reversed": "\u202egnp.exe",
    "arabic": "مريم",
    "piled": "Z" + "\u0301" * 100,
    "emoji": "👩‍👩‍👧‍👦" * 10,
}


async def wait_rows(page: Page, rows: Sequence[tuple[str, str, str]]) -> None:
    """Wait until the page shows exactly these rows: rank, name, score."""
    expected = json.dumps([list(row) for row in rows], ensure_ascii=False, separators=(",", ":"))
    await page.wait(f"JSON.stringify({scripts.SHOWN_ROWS}) === {json.dumps(expected, ensure_ascii=False)}")


async def overflow(page: Page) -> int:
    """By how many pixels the page can be scrolled sideways."""
    width: int = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width


async def test_a_post_moves_a_row_without_a_reload(page: Page, backend: Backend) -> None:
    """A backend reports an action: the row of its user moves up and shows the gain, without a reload."""
    await page.before_scripts(scripts.COUNTED_MOVES)
    await backend.report_many({"ada": 3, "grace": 2, "linus": 1})
    await page.open(f"{backend.url}/")
    await page.wait(LIVE)
    await wait_rows(page, [("1", "ada", "30"), ("2", "grace", "20"), ("3", "linus", "10")])
    await page.evaluate("window.row = inside.querySelectorAll('tbody tr')[2]")
    assert await page.evaluate("moves") == 0

    await backend.report("linus", reason="BONUS")

    await wait_rows(page, [("1", "linus", "1,510"), ("2", "ada", "30"), ("3", "grace", "20")])
    assert await page.evaluate("row === inside.querySelector('tbody tr')")
    assert await page.evaluate("row.querySelector('.gain').textContent") in {"+1,500", ""}  # it may be gone by now
    assert await page.evaluate("moves") == 3


async def test_gains_that_follow_each_other_add_up(page: Page, backend: Backend) -> None:
    """Two actions in a row show as one sum beside the score, and it goes away again."""
    await backend.report("ada")
    await page.open(f"{backend.url}/")
    await wait_rows(page, [("1", "ada", "10")])
    # The gain's text is watched, because it is there only for a moment.
    await page.evaluate(
        "window.gains = []; new MutationObserver(() => gains.push(inside.querySelector('.gain').textContent))"
        ".observe(inside.querySelector('.gain'), { childList: true }), 0"
    )
    await backend.report_many({"ada": 2})
    await page.wait("gains[0] === '+20'")
    await page.wait("gains.at(-1) === ''")


async def test_who_leaves_the_top_ten_leaves_the_page(page: Page, backend: Backend) -> None:
    """An eleventh user overtakes the tenth: the page shows ten rows, the newcomer among them."""
    await backend.report_many({f"user-{number:02}": 12 - number for number in range(1, 11)})
    await page.open(f"{backend.url}/")
    await page.wait("inside.querySelectorAll('tbody tr').length === 10")
    await backend.report("newcomer", reason="BONUS")
    await wait_rows(
        page,
        [("1", "newcomer", "1,500")]
        + [(str(number + 1), f"user-{number:02}", str((12 - number) * 10)) for number in range(1, 10)],
    )
    await page.wait("inside.querySelectorAll('tbody tr').length === 10")  # the row that left is gone, too


async def test_less_motion_for_who_asked_for_it(page: Page, backend: Backend) -> None:
    """With prefers-reduced-motion, rows change places without moving."""
    await page.before_scripts(scripts.COUNTED_MOVES)
    await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    await backend.report_many({"ada": 2, "grace": 1})
    await page.open(f"{backend.url}/")
    await wait_rows(page, [("1", "ada", "20"), ("2", "grace", "10")])
    await backend.report("grace", reason="BONUS")
    await wait_rows(page, [("1", "grace", "1,510"), ("2", "ada", "20")])
    assert await page.evaluate("moves") == 0


async def test_names_are_shown_as_text(page: Page, backend: Backend) -> None:
    """A name that is markup, very long, right-to-left or full of combining marks stays text inside its row."""
    await backend.report_many({user_id: 10 - place for place, user_id in enumerate(HOSTILE_NAMES)})
    await page.open(f"{backend.url}/")
    for user_id, display_name in HOSTILE_NAMES.items():
        await backend.name(user_id, display_name)
    await wait_rows(
        page, [(str(place + 1), name, str((10 - place) * 10)) for place, name in enumerate(HOSTILE_NAMES.values())]
    )
    assert await page.evaluate("inside.querySelectorAll('tbody img, tbody script').length") == 0
    assert await page.evaluate("'owned' in window") is False
    for size in (SMALL_PHONE, PHONE, LAPTOP, WALL):
        await page.show_as(*size)
        assert await overflow(page) == 0
        heights = await page.evaluate("[...inside.querySelectorAll('tbody tr')].map((row) => row.offsetHeight)")
        assert len(set(heights)) == 1


async def test_an_empty_board_says_what_to_do(page: Page, backend: Backend) -> None:
    """A board without scores shows a request that adds one; then it shows the score instead."""
    await page.open(f"{backend.url}/?boardId=weekly")
    await page.wait(LIVE)
    assert "No scores yet" in await page.evaluate("inside.getElementById('empty').innerText")
    text = await page.evaluate("document.querySelector('[slot=empty]').innerText")
    assert f"curl '{backend.url}/scores/increment'" in text
    assert '"boardId":"weekly"' in text
    for size in (SMALL_PHONE, PHONE, LAPTOP):
        await page.show_as(*size)
        assert await overflow(page) == 0
    await backend.report("ada", board_id="weekly")
    await wait_rows(page, [("1", "ada", "1")])
    assert await page.evaluate("inside.getElementById('empty').hidden")
    assert not await page.evaluate("document.getElementById('example').checkVisibility()")
    assert await page.evaluate("document.title") == "weekly · Scoreboard"


async def test_it_is_a_table_for_assistive_technology(page: Page, backend: Backend) -> None:
    """The accessibility tree has a named table with header cells; a new leader is announced once, politely."""
    await backend.report_many({"ada": 2, "grace": 1})
    await page.open(f"{backend.url}/")
    await wait_rows(page, [("1", "ada", "20"), ("2", "grace", "10")])
    tree = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    nodes = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    assert ("table", "Top 10") in nodes
    assert [name for role, name in nodes if role == "columnheader"] == ["Rank", "Name", "Score"]
    assert [name for role, name in nodes if role == "rowheader"] == ["ada", "grace"]
    await backend.report("grace", reason="BONUS")
    await page.wait("inside.querySelector('[aria-live=polite]').textContent === 'grace leads with 1,510.'")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_every_screen_in_light_and_dark(page: Page, backend: Backend, dark: bool) -> None:
    """From a small phone to a wall: no sideways scrolling, ten rows in sight where the screen is tall enough, and
    every text has contrast to its background.
    """
    await backend.report_many({f"user-{number:02}": 50 - 4 * number for number in range(10)})
    await page.show_as(*LAPTOP, dark=dark)
    await page.open(f"{backend.url}/")
    await page.wait("inside.querySelectorAll('tbody tr').length === 10")
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(", ")) < 3 * 64) is dark
    assert await page.evaluate(scripts.WORST_CONTRAST) >= 4.5
    for size in (SMALL_PHONE, PHONE, LANDSCAPE, LAPTOP, WALL, LARGE_WALL):
        await page.show_as(*size, dark=dark)
        assert await overflow(page) == 0
        if size != LANDSCAPE:
            bottom = await page.evaluate("inside.querySelector('tbody').getBoundingClientRect().bottom")
            assert size[1] * 0.6 < bottom <= size[1]
