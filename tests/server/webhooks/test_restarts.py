"""Webhooks over restarts and a promotion: what was not acknowledged comes again, and what was does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from engine.disk import RealDisk
from server.webhooks import retries
from snapshots.restore import restore
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.nodes import caught_up, config_for, leader_of_directory, replica_of, serving
from tests.server.webhooks.hooked import FLAGGED, Site, hooked, variable
from tests.server.webhooks.receiver import Reply, receiving

WAIT = Reply(503, (("retry-after", "3600"),))


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EventDict]]:
    """What is logged."""
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.01)
    with capture_logs() as logged:
        yield logged


async def test_what_was_not_acknowledged_comes_again_with_its_id(tmp_path: Path) -> None:
    """The same bytes, from the log and from what was pending; and nothing twice that was acknowledged."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            hooks = {"shop": receiver}
            async with hooked(tmp_path, hooks) as site:
                await site.score("ann", 2)
                assert (await receiver.next()).kind == "top.changed"
                receiver.always = WAIT
                await site.score("ben", 3)
                failed = await receiver.next()
                assert failed.kind == "top.changed"
            receiver.always = Reply()
            async with hooked(tmp_path, hooks) as site:
                again, overtook = await receiver.take(2)
                assert (again.id, again.body) == (failed.id, failed.body)
                assert overtook.data["overtakings"] == [{"userId": "ben", "rank": 1, "score": 30, "overtook": ["ann"]}]
                receiver.always = WAIT
                ended = (await site.ask("POST", "/boards/main/reset"))["seq"]
                assert (await receiver.next()).id == f"1-{ended}-period_ended"
            receiver.always = Reply()
            async with hooked(tmp_path, hooks) as site:
                period, empty = await receiver.take(2)
                assert (period.id, period.body) == (receiver.got[-3].id, receiver.got[-3].body)
                assert empty.data["entries"] == []
            async with hooked(tmp_path, hooks) as site:
                await site.ask("DELETE", "/users/ann")
                assert (await receiver.next()).kind == "user.erased", "nothing else was left to deliver"


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_who_overtook_whom_is_told_though_the_period_ended_meanwhile(tmp_path: Path, is_restarted: bool) -> None:
    """What was pending, and what nobody had looked at yet. The board is empty since; who was erased is left out."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver, AsyncExitStack() as stack:
            hooks = {"shop": receiver}
            site = await stack.enter_async_context(hooked(tmp_path, hooks, events=["user.overtaken"]))
            for user, times in (("ann", 1), ("ben", 2), ("gone", 3)):
                await site.score(user, times)
                while (await site.status("shop"))["lag"]:
                    pass
            await receiver.take(2)
            receiver.always = WAIT
            seq = await site.score("ann", 6)
            assert (await receiver.next()).data["overtakings"][0]["overtook"] == ["gone", "ben"]
            last = await site.score("ben", 9)
            ended = (await site.ask("POST", "/boards/main/reset"))["seq"]
            await site.ask("DELETE", "/users/gone")
            assert last < ended
            if is_restarted:
                await stack.aclose()
                receiver.always = Reply()
                site = await stack.enter_async_context(hooked(tmp_path, hooks, events=["user.overtaken"]))
            else:
                receiver.always = Reply()
                await site.ask("POST", "/webhooks/shop/enable")
            again, final = await receiver.take(2)
            assert again.id == f"1-{seq}-user_overtaken-main"
            assert again.data["overtakings"] == [{"userId": "ann", "rank": 1, "score": 70, "overtook": ["ben"]}]
            assert final.id == f"1-{ended}-user_overtaken-main"
            assert final.data["overtakings"] == [{"userId": "ben", "rank": 1, "score": 110, "overtook": ["ann"]}]
            await stack.aclose()


async def test_what_happened_while_nobody_delivered_is_found_in_the_log(tmp_path: Path) -> None:
    """A node without the hook in its configuration ran meanwhile: the cursor is older than what is remembered."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            hooks = {"shop": receiver}
            async with hooked(tmp_path, hooks) as site:
                await site.ask("PUT", "/boards/cup", FLAGGED, 201)
                await site.win("ann", 1)
                await receiver.next()
            async with hooked(tmp_path, {}) as site:
                flagged = await site.win("ben", 3)
                first = (await site.ask("POST", "/boards/cup/reset"))["seq"]
                await site.win("cyd", 2)
                second = (await site.ask("POST", "/boards/cup/reset"))["seq"]
                erased = (await site.ask("DELETE", "/users/ann"))["seq"]
            async with hooked(tmp_path, hooks) as site:
                found = await receiver.take(5)
                assert [each.id for each in found] == [
                    f"1-{flagged}-review_flagged-0", f"1-{first}-period_ended", f"1-{second}-period_ended",
                    f"1-{erased}-user_erased", f"1-{second}-top_changed-cup",
                ]  # fmt: skip
                assert [row["userId"] for row in found[1].data["entries"]] == ["ben"]
                assert (await site.status("shop"))["disabled"] is False


async def test_a_new_hook_begins_now_and_says_so(tmp_path: Path, lines: list[EventDict]) -> None:
    """What was before is not told: neither periods nor the rows of now. So does one whose cursor can't be read."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            async with hooked(tmp_path, {}) as site:
                await site.score("ann", 2)
                await site.ask("POST", "/boards/main/reset")
                await site.score("ann", 1)
            hooks = {"shop": receiver}
            async with hooked(tmp_path, hooks) as site:
                await site.score("ben", 2)
                first, second = await receiver.take(2)
                assert (first.kind, second.kind) == ("top.changed", "user.overtaken")
            path = tmp_path / "webhooks" / "shop.json"
            assert b"ann" not in path.read_bytes()
            path.write_bytes(b"{")
            async with hooked(tmp_path, hooks) as site:
                await site.ask("POST", "/boards/main/reset")
                assert (await receiver.next()).kind == "period.ended"
    begun = [line for line in lines if line["event"] == "webhook_begins"]
    assert len(begun) == 2
    assert "can't be read" in begun[1]["reason"]


@pytest.mark.parametrize("is_copied", [False, True])
async def test_a_promoted_replica_delivers(tmp_path: Path, is_copied: bool, lines: list[EventDict]) -> None:
    """From the promotion on; or from where the old leader was, if its cursors were copied into the directory."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver, AsyncExitStack() as stack:
            environ = {"SCOREBOARD_LIVE_INTERVAL_MS": "10", "SCOREBOARD_WEBHOOKS": variable({"shop": receiver})}
            leader = await stack.enter_async_context(
                serving(config_for(tmp_path / "leader", **environ), leader_of_directory)
            )
            client = await stack.enter_async_context(Client("127.0.0.1", leader.port, outside.token("admin")))
            site = Site(leader, client)
            await site.score("ann")
            await receiver.next()
            receiver.always = WAIT
            lost = (await site.ask("POST", "/boards/main/reset"))["seq"]
            assert (await receiver.next()).id == f"1-{lost}-period_ended"
            replica = await stack.enter_async_context(
                serving(config_for(tmp_path / "replica", **environ), replica_of(leader.url))
            )
            await caught_up(replica)
            client = await stack.enter_async_context(Client("127.0.0.1", replica.port, outside.token("admin")))
            other = Site(replica, client)
            await other.ask("GET", "/webhooks", status=421)
            if is_copied:
                (tmp_path / "replica" / "webhooks").mkdir()
                cursor = (tmp_path / "leader" / "webhooks" / "shop.json").read_bytes()
                (tmp_path / "replica" / "webhooks" / "shop.json").write_bytes(cursor)
            receiver.always = Reply()
            epoch, _ = await replica.node.promote()
            assert epoch == 2
            if is_copied:
                again = await receiver.next()
                assert (again.id, again.body) == (receiver.got[1].id, receiver.got[1].body)
            await other.score("ben")
            new = await receiver.until("top.changed")
            assert [row["userId"] for row in new.data["entries"]] in ([], ["ben"])
            assert new.data["epoch"] == 2
            ended = (await other.ask("POST", "/boards/main/reset"))["seq"]
            assert (await receiver.until("period.ended")).id == f"2-{ended}-period_ended"
    begun = [line for line in lines if line["event"] == "webhook_begins" and line["epoch"] == 2]
    assert len(begun) == (0 if is_copied else 1)


def restored(source: Path, target: Path, until_seq: int | None = None) -> None:
    """Restore a directory."""
    restore(RealDisk(), str(source), str(target), until_seq=until_seq, clock_ms=lambda: 0, tell=lambda _: None)


async def test_a_restored_directory_goes_on_where_its_hooks_stopped(tmp_path: Path) -> None:
    """What waited is sent, and what lies behind the bound is not. An interrupted try before does no harm."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            receiver.always = WAIT
            async with hooked(tmp_path / "a", {"shop": receiver}, events=["user.erased"]) as site:
                await site.score("ann")
                await site.score("ben")
                erased = (await site.ask("DELETE", "/users/ann"))["seq"]
                await receiver.next()
                await site.ask("DELETE", "/users/ben")
            (tmp_path / "b.unfinished" / "webhooks").mkdir(parents=True)
            (tmp_path / "b.unfinished" / "webhooks" / "old.json").touch()
            restored(tmp_path / "a", tmp_path / "b", until_seq=erased)
            assert [path.name for path in (tmp_path / "b" / "webhooks").iterdir()] == ["shop.json"]
            receiver.always = Reply()
            async with hooked(tmp_path / "b", {"shop": receiver}, events=["user.erased"]) as site:
                assert (await receiver.next()).id == receiver.got[0].id
                last = (await site.ask("DELETE", "/users/ben"))["seq"]
                assert (await receiver.next()).id == f"2-{last}-user_erased"


async def test_a_hook_that_was_disabled_stays_so_in_a_restored_directory(tmp_path: Path) -> None:
    """Though its cursor is of an epoch that the restored directory does not have, so that it does not count."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            async with hooked(tmp_path / "a", {"shop": receiver}, events=["user.erased"]) as site:
                first = await site.score("ann")
            restored(tmp_path / "a", tmp_path / "b")
            receiver.always = Reply(410)
            async with hooked(tmp_path / "b", {"shop": receiver}, events=["user.erased"]) as site:
                await site.ask("DELETE", "/users/ann")
                await receiver.next()
                while not (await site.status("shop"))["disabled"]:
                    pass
            restored(tmp_path / "b", tmp_path / "c", until_seq=first)
            async with hooked(tmp_path / "c", {"shop": receiver}, events=["user.erased"]) as site:
                assert (await site.status("shop"))["disabled"]
