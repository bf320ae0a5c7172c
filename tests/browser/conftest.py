"""One browser for all tests of this package, a page of its own for each test, and a real server beside it.

The browser is started once because a start takes longer than most tests; every test gets a new context in it, which
shares nothing with another's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.browser import cdp, chromium, scripts
from tests.browser.backend import Backend
from tests.e2e.leader import Leader, serving

CONFIG = """
[boards.main]
points = { ACTION_COMPLETED = 10, BONUS = 1500 }
[boards.weekly]
points = { ACTION_COMPLETED = 1 }
"""


@pytest.fixture(scope="session")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running browser's DevTools."""
    program = chromium.find()
    if program is None:
        pytest.skip(f"there is no browser here: none of {', '.join(chromium.NAMES)} is on the PATH")
    with chromium.running(program, tmp_path_factory.mktemp("browser") / "profile") as address:
        yield address


@pytest.fixture
async def browser(devtools: str) -> AsyncIterator[cdp.Browser]:
    """A connection to the browser."""
    async with cdp.connected(devtools) as connected:
        yield connected


@pytest.fixture
async def page(browser: cdp.Browser) -> AsyncIterator[cdp.Page]:
    """A new page, as large as a laptop's. No error and no policy violation may happen in it."""
    async with browser.new_page() as opened:
        await opened.show_as(1280, 800)
        await opened.before_scripts(scripts.INSIDE)
        yield opened
        assert opened.faults == []


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with two boards."""
    path = tmp_path / "scoreboard.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
async def leader(tmp_path: Path, config: Path) -> AsyncIterator[Leader]:
    """A leader with an empty directory."""
    async with serving(tmp_path / "data", config=config) as running:
        yield running


@pytest.fixture
async def backend(leader: Leader) -> AsyncIterator[Backend]:
    """A backend that reports actions to that leader."""
    async with Backend(leader.port) as reporting:
        yield reporting
