"""Webhooks of a served leader: what is delivered, in which order; failures, freezes and erasures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from server.webhooks import retries
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.webhooks.hooked import FLAGGED, Site, hooked
from tests.server.webhooks.receiver import OTHER_SECRET, SECRET, Delivery, Reply, receiving


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EventDict]]:
    """What is logged. A failure is tried again soon, and a hanging test ends."""
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.01)
    with capture_logs() as logged:
        yield logged


def rows_of(delivery: Delivery) -> list[tuple[int, str, int]]:
    return [(row["rank"], row["userId"], row["score"]) for row in delivery.data["entries"]]


async def test_all_five_events_are_delivered_in_order_and_signed(tmp_path: Path) -> None:
    """Each with its position in its id, and with what the API says of it."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver, hooked(tmp_path, {"shop": receiver}) as site:
            await site.ask("PUT", "/boards/cup", FLAGGED, 201)
            await site.win("ann", 2)
            first = await receiver.next()
            assert (first.kind, rows_of(first)) == ("top.changed", [(1, "ann", 20)])
            top = await site.ask("GET", "/scoreboard/top?boardId=cup")
            assert first.data["entries"] == top["entries"]
            assert first.data["boardId"] == "cup"
            assert (first.data["epoch"], first.data["seq"]) == (top["epoch"], top["seq"])

            seq = await site.win("ben", 3)
            flagged = await receiver.next()
            assert (flagged.kind, flagged.id) == ("review.flagged", f"1-{seq}-review_flagged-0")
            review = (await site.ask("GET", f"/reviews/{seq}-0"))["review"]
            assert flagged.data["reviewId"] == review["reviewId"]
            assert (flagged.data["userId"], flagged.data["value"], flagged.data["limit"]) == ("ben", 30, 25)
            changed, overtook = await receiver.take(2)
            assert rows_of(changed) == [(1, "ben", 30), (2, "ann", 20)]
            assert overtook.id == f"1-{seq}-user_overtaken-cup"
            assert overtook.data["overtakings"] == [{"userId": "ben", "rank": 1, "score": 30, "overtook": ["ann"]}]

            ended = (await site.ask("POST", "/boards/cup/reset"))["seq"]
            period, empty = await receiver.take(2)
            assert period.id == f"1-{ended}-period_ended"
            assert rows_of(period) == [(1, "ben", 30), (2, "ann", 20)]
            past = (await site.ask("GET", "/boards/cup/periods"))["periods"][0]
            assert (period.data["period"], period.data["count"]) == (past["period"], 2)
            assert (empty.kind, rows_of(empty)) == ("top.changed", [])

            erased = (await site.ask("DELETE", "/users/ben"))["seq"]
            gone = await receiver.next()
            assert (gone.id, gone.data["userId"]) == (f"1-{erased}-user_erased", "ben")
            assert len({each.id for each in receiver.got}) == len(receiver.got)
            assert all(each.is_signed_by(secret) for each in receiver.got for secret in (SECRET, OTHER_SECRET))


async def test_a_hook_is_told_only_of_its_events_and_boards(tmp_path: Path) -> None:
    """An erasure is of no board."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with (
            receiving() as receiver,
            hooked(tmp_path, {"shop": receiver}, boards=["main"], events=["top.changed", "user.erased"]) as site,
        ):
            await site.ask("PUT", "/boards/cup", FLAGGED, 201)
            await site.win("ann", 5)
            await site.ask("POST", "/boards/cup/reset")
            await site.ask("DELETE", "/users/ann")
            await site.score("ben")
            assert [each.kind for each in await receiver.take(2)] == ["user.erased", "top.changed"]
            assert [each.data.get("boardId") for each in receiver.got] == [None, "main"]
            assert (await site.status("shop"))["boards"] == ["main"]


async def test_a_failure_is_tried_again_with_the_same_id_and_delays_no_other_hook(
    tmp_path: Path, lines: list[EventDict]
) -> None:
    """One receiver fails and another one hangs. The third has everything meanwhile."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as failing, receiving() as hanging, receiving() as good:
            failing.answers.extend([Reply(500), Reply(raw=b"nonsense\r\n\r\n"), Reply(302)])
            hanging.always = Reply(hang=True)
            hooks = {"failing": failing, "hanging": hanging, "good": good}
            async with hooked(tmp_path, hooks, events=["period.ended"]) as site:
                await site.score("ann")
                seqs = [(await site.ask("POST", "/boards/main/reset"))["seq"]]
                for _ in range(3):
                    await site.score("ann")
                    seqs.append((await site.ask("POST", "/boards/main/reset"))["seq"])
                ids = [f"1-{seq}-period_ended" for seq in seqs]
                assert [each.id for each in await good.take(4)] == ids
                assert [each.id for each in await failing.take(7)] == [ids[0]] * 3 + ids
                assert [each.body for each in failing.got[:4]] == [failing.got[0].body] * 4
                await hanging.next()
                status = await site.status("hanging")
                assert (status["cursor"]["seq"] < seqs[0], status["disabled"]) == (True, False)
                assert status["lag"] > 0
                assert len(hanging.got) == 1
    failed = [line for line in lines if line["event"] == "webhook_failed"]
    assert [line["failures"] for line in failed] == [1, 2, 3]
    assert any(line["event"] == "webhook_recovered" for line in lines)


async def test_410_disables_a_hook_and_enabling_goes_on_where_it_stopped(
    tmp_path: Path, lines: list[EventDict]
) -> None:
    """Told in /readyz, the log, the metrics and the list; also after a restart."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            receiver.always = Reply(410)
            hooks = {"shop": receiver}
            async with hooked(tmp_path, hooks, events=["period.ended"]) as site:
                await site.score("ann")
                await site.ask("POST", "/boards/main/reset")
                await receiver.next()
                while not (await site.status("shop"))["disabled"]:
                    pass
                await site.score("ann")
                await site.ask("POST", "/boards/main/reset")
            assert any(line["event"] == "webhook_disabled" for line in lines)
            receiver.always = Reply()
            async with hooked(tmp_path, hooks, events=["period.ended"]) as site:
                status = await site.status("shop")
                assert status["disabled"]
                assert "410" in status["lastError"]
                assert status["lag"] > 0
                [warning] = (await site.ask("GET", "/readyz"))["warnings"]
                assert "POST /webhooks/shop/enable" in warning
                metrics = (await site.client.get("/metrics")).body.decode()
                assert 'scoreboard_webhook_disabled{webhook="shop"} 1.0' in metrics
                await site.score("ann")
                ended = (await site.ask("POST", "/boards/main/reset"))["seq"]
                assert len(receiver.got) == 1, "a disabled hook delivers nothing"
                assert not (await site.ask("POST", "/webhooks/shop/enable"))["webhook"]["disabled"]
                found = await receiver.take(3)
                assert found[0].id == receiver.got[0].id
                assert found[-1].id == f"1-{ended}-period_ended"
                assert "warnings" not in await site.ask("GET", "/readyz")
                await site.ask("POST", "/webhooks/nobody/enable", status=404)
                while (await site.status("shop"))["lag"]:
                    pass
                metrics = (await site.client.get("/metrics")).body.decode()
                assert 'scoreboard_webhook_deliveries_total{webhook="shop"} 3.0' in metrics


async def test_a_frozen_board_leaks_nothing_and_tells_it_at_its_end(tmp_path: Path) -> None:
    """Flags, ends of periods, rows and overtakings of a frozen board wait. Those of other boards do not."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver, hooked(tmp_path, {"shop": receiver}) as site:
            await site.ask("PUT", "/boards/cup", FLAGGED, 201)
            await site.win("ann", 2)
            await receiver.next()
            await site.ask("POST", "/boards/cup/freeze")
            flagged = await site.win("cheat", 3)
            await site.win("cheat", 2)
            ended = (await site.ask("POST", "/boards/cup/reset"))["seq"]
            await site.win("cheat", 1)
            await site.ask("PUT", "/boards/open", FLAGGED, 201)
            await site.win("ben", 2, board="open")
            await receiver.until("top.changed")
            await site.win("cyd", 3, board="open")
            while (await receiver.next()).data.get("overtakings", [{}])[0].get("userId") != "cyd":
                pass
            assert all(each.data["boardId"] != "cup" for each in receiver.got[1:])
            assert b"cheat" not in b"".join(each.body for each in receiver.got)
            await site.ask("POST", "/boards/cup/unfreeze")
            review, period = await receiver.until("review.flagged"), await receiver.until("period.ended")
            assert (review.id, period.id) == (f"1-{flagged}-review_flagged-0", f"1-{ended}-period_ended")
            assert rows_of(period) == [(1, "cheat", 50), (2, "ann", 20)]
            assert rows_of(await receiver.until("top.changed")) == [(1, "cheat", 10)]


async def test_a_reveal_is_told_row_by_row(tmp_path: Path) -> None:
    """The public sees a row more, and so does the receiver."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver, hooked(tmp_path, {"shop": receiver}, events=["top.changed"]) as site:
            for user in ("ann", "ben"):
                await site.score(user)
                await receiver.next()
            await site.ask("POST", "/boards/main/freeze")
            await site.score("ann", 5)
            await site.score("ben", 9)
            for expected in ([(1, "ben", 100), (2, "ann", 10)], [(1, "ben", 100), (2, "ann", 60)]):
                await site.ask("POST", "/boards/main/reveal", {"step": 1})
                assert rows_of(await receiver.next()) == expected


async def test_names_are_told_as_the_public_sees_them(tmp_path: Path) -> None:
    """`[privacy] names` holds for every delivery."""
    environ = {"SCOREBOARD_PRIVACY_NAMES": "initials"}
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver, hooked(tmp_path, {"shop": receiver}, environ) as site:
            for user, name in (("ann", "Ann Kathrin"), ("ben", "Benedikt")):
                await site.ask("PUT", f"/users/{user}", {"displayName": name})
                await site.score(user, 2 if user == "ben" else 1)
                await receiver.until("top.changed")  # else both may be told as one change, in which nobody was behind
            await receiver.until("user.overtaken")
            await site.ask("POST", "/boards/main/reset")
            await receiver.until("period.ended")
            told = b"".join(each.body for each in receiver.got)
            assert b"Kathrin" not in told
            assert b"Benedikt" not in told
            assert b'"displayName":"A. K."' in told


async def test_who_was_erased_is_in_no_delivery_that_is_made_later(tmp_path: Path) -> None:
    """Not in one that failed before, nor in any later one; only the erasure itself names the user."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            receiver.always = Reply(503, (("retry-after", "3600"),))
            async with hooked(tmp_path, {"shop": receiver}) as site:
                await site.ask("PUT", "/boards/cup", FLAGGED, 201)
                await site.win("ben", 1)
                await receiver.next()
                await site.win("gone", 5)
                await site.ask("POST", "/boards/cup/reset")
                erased = (await site.ask("DELETE", "/users/gone"))["seq"]
                receiver.always = Reply()
                await site.ask("POST", "/webhooks/shop/enable")
                last = await receiver.until("user.erased")
                assert (last.data["userId"], last.data["seq"]) == ("gone", erased)
                await site.win("ben", 1)
                await receiver.until("top.changed")
                told = [each for each in receiver.got[1:] if b"gone" in each.body]
                assert told == [last]
                assert [each.kind for each in receiver.got if each.kind == "period.ended"] == ["period.ended"]


async def lost_top(site: Site) -> int:
    """The last seq of the board."""
    top = await site.ask("GET", "/scoreboard/top")
    seq: int = top["seq"]
    return seq


async def test_a_top_that_failed_is_replaced_by_the_newest_one(tmp_path: Path) -> None:
    """What nobody acknowledged is skipped for the newest; who overtook whom is not."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            receiver.answers.extend([Reply(), Reply(503, (("retry-after", "3600"),))])
            async with hooked(tmp_path, {"shop": receiver}) as site:
                await site.score("ann", 2)
                await receiver.next()
                await site.score("ben", 3)
                failed = await receiver.next()
                assert failed.kind == "top.changed"
                overtaken_seq = failed.data["seq"]
                await site.score("ann", 7)
                seq = await lost_top(site)
                await site.ask("POST", "/webhooks/shop/enable")
                newest, before, after = await receiver.take(3)
                assert newest.id == f"1-{seq}-top_changed-main"
                assert rows_of(newest) == [(1, "ann", 90), (2, "ben", 30)]
                assert before.id == f"1-{overtaken_seq}-user_overtaken-main"
                assert before.data["overtakings"][0]["overtook"] == ["ann"]
                assert after.data["overtakings"] == [{"userId": "ann", "rank": 1, "score": 90, "overtook": ["ben"]}]


@pytest.mark.parametrize("failing", ["top.changed", "period.ended"])
async def test_a_top_never_comes_before_older_events_of_the_log(tmp_path: Path, failing: str) -> None:
    """Neither in place of one that failed, nor after an event that failed while others came."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with receiving() as receiver:
            events = ["top.changed", "period.ended", "user.erased"]
            async with hooked(tmp_path, {"shop": receiver}, events=events) as site:
                await site.score("ann")
                await receiver.next()
                receiver.answers.append(Reply(503, (("retry-after", "3600"),)))
                first = await site.score("ann") if failing == "top.changed" else await reset(site)
                assert (await receiver.next()).kind == failing
                expected = [] if failing == "top.changed" else [f"1-{first}-period_ended"]
                expected.append(f"1-{(await site.ask('DELETE', '/users/ann'))['seq']}-user_erased")
                expected.append(f"1-{await reset(site)}-period_ended")
                expected.append(f"1-{await site.score('ben')}-top_changed-main")
                await site.ask("POST", "/webhooks/shop/enable")
                assert [each.id for each in await receiver.take(len(expected))] == expected


async def test_a_top_that_gave_way_is_told_though_it_is_as_before(tmp_path: Path) -> None:
    """Nobody acknowledged that the board was empty, so it is told, also if it was filled and emptied since."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with (
            receiving() as receiver,
            hooked(tmp_path, {"shop": receiver}, events=["top.changed", "user.erased"]) as site,
        ):
            await site.score("ann")
            await receiver.next()
            receiver.answers.append(Reply(503, (("retry-after", "3600"),)))
            await reset(site)
            assert rows_of(await receiver.next()) == []
            await site.score("ben")
            await site.ask("DELETE", "/users/ann")
            receiver.answers.append(Reply(503, (("retry-after", "3600"),)))
            await site.ask("POST", "/webhooks/shop/enable")
            assert (await receiver.next()).kind == "user.erased"
            await reset(site)
            await site.ask("POST", "/webhooks/shop/enable")
            again, empty = await receiver.take(2)
            assert (again.kind, empty.kind, rows_of(empty)) == ("user.erased", "top.changed", [])


async def reset(site: Site) -> int:
    """Begin a new period; give the seq."""
    seq: int = (await site.ask("POST", "/boards/main/reset"))["seq"]
    return seq
