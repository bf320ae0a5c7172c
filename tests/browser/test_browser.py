"""Without a browser the tests of this package are skipped; these tests keep that from going unseen."""

from __future__ import annotations

import os

import pytest

from tests.browser import chromium
from tests.browser.cdp import Browser


@pytest.mark.skipif(not os.environ.get("CI"), reason="only continuous integration must have a browser")
def test_continuous_integration_has_a_browser() -> None:
    """In CI a missing browser is a failure, so the pages are never left untested."""
    assert chromium.find() is not None, f"install one of {', '.join(chromium.NAMES)}"


async def test_pages_share_nothing(browser: Browser) -> None:
    """What one test's page stores, another's does not see."""
    async with browser.new_page() as first, browser.new_page() as second:
        for page in (first, second):
            await page.open("about:blank")
        assert await first.evaluate("window.mark = 7") == 7
        assert await second.evaluate("window.mark ?? null") is None


async def test_faults_are_kept(browser: Browser) -> None:
    """An error in a page is kept for the test to see: a page that breaks cannot pass by looking right."""
    async with browser.new_page() as page:
        await page.open("data:text/html,<script>throw new Error('a page broke')</script>")
        await page.wait("document.readyState === 'complete'")
        assert ["a page broke" in fault for fault in page.faults] == [True]
