"""A replica's page while its leader goes away and comes back: it says how old its rows are."""

from __future__ import annotations

from pathlib import Path

from tests.browser import cdp, scripts
from tests.browser.backend import Backend
from tests.browser.test_connection import POLLING
from tests.browser.test_page import LIVE, wait_rows
from tests.e2e.leader import QUICK_RETRIES, Leader, following, serving

STALE = "board.state === 'stale'"
STATUS = "inside.getElementById('status')"
AGED = "/^Out of date\\s*· ([1-9][0-9]*) s ago$/"
AGE = f"Number({AGED}.exec({STATUS}.innerText)?.[1])"
BEFORE = [("1", "ada", "20"), ("2", "grace", "10")]
AFTER = [("1", "grace", "1,510"), ("2", "ada", "20")]


async def test_it_says_that_it_is_out_of_date_until_the_leader_is_back(
    page: cdp.Page, browser: cdp.Browser, tmp_path: Path, config: Path, leader: Leader, backend: Backend
) -> None:
    """The leader dies: the rows stay, and their age grows. The leader is back: the rows move, without an age. A page
    that gets no WebSocket says the same as one that does.
    """
    await backend.report_many({"ada": 2, "grace": 1})
    arguments = ("--config", str(config))
    async with (
        following(tmp_path, "replica", leader.url, *arguments, constants=QUICK_RETRIES) as replica,
        browser.new_page() as polling,
    ):
        await polling.before_scripts(scripts.INSIDE)
        await polling.before_scripts(scripts.FAST_CLOCK)  # it asks only every few seconds
        await polling.before_scripts(scripts.NO_PUSH)
        both = {LIVE: page, POLLING: polling}
        for good, each in both.items():
            await each.open(f"{replica.url}/")
            await wait_rows(each, BEFORE)
            await each.wait(good)
            assert "Out of date" not in await each.evaluate(f"{STATUS}.innerText")

        await leader.kill()
        for each in both.values():
            await each.wait(f"{STALE} && {AGED}.test({STATUS}.innerText)")
            assert "has lost its source" in await each.evaluate(f"{STATUS}.title")
            first = await each.evaluate(AGE)
            assert first >= 3
            await each.wait(f"{AGE} > {first}")
            await wait_rows(each, BEFORE)

        again = ("--bind", f"127.0.0.1:{leader.port}")
        async with serving(tmp_path / "data", config=config, arguments=again) as back:
            for good, each in both.items():
                await each.wait(good)
                assert "Out of date" not in await each.evaluate(f"{STATUS}.innerText")
            async with Backend(back.port) as reporting:
                await reporting.report("grace", reason="BONUS")
            for good, each in both.items():
                await wait_rows(each, AFTER)
                assert await each.evaluate(good)
        assert polling.faults == []
