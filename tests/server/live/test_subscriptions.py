"""Viewers that subscribe to one user's place, over real sockets: who may, what they are told, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from server import bounds
from server.access.auth import ANYBODY, Principal
from server.access.lease import Lease
from server.http.messages import Refused
from server.http.websocket import CLOSE, PING, PONG, TEXT
from tests.server.access.leases import Landlord
from tests.server.live.client_frames import client_frame
from tests.server.live.watching import BareViewer, crowd, open_site, stall


def asking(kind: str = "subscribe", **fields: Any) -> bytes:
    """Make a message of a viewer."""
    return json.dumps({"type": kind, **fields}).encode()


async def ask(viewer: BareViewer, kind: str = "subscribe", **fields: Any) -> dict[str, Any]:
    """Send a message and read the next one."""
    await viewer.send(TEXT, asking(kind, **fields))
    return await viewer.message()


async def user_message(viewer: BareViewer) -> dict[str, Any]:
    """Read on to the next message about a user."""
    while (message := await viewer.message())["type"] != "scoreboard_user":
        pass
    return message


class Tokens(Landlord):
    """A landlord that knows two tokens: `Bearer ann` is for ann only, `Bearer any` for everybody."""

    async def authorize(self, authorization: str | None) -> Lease:
        """See `Authorize`."""
        user = await self.identify(authorization or "")
        return Lease(self, Principal("tests", frozenset({"scores:read"}), user, ANYBODY.expires_s))

    async def identify(self, authorization: str) -> str | None:
        """See `Identify`."""
        return "ann" if authorization == "Bearer ann" else None


# What is told


async def test_a_viewer_is_told_its_own_place_and_who_passed(mock_clock: MockClock) -> None:
    """At once, and then in the tick that shows the top, after it."""
    async with open_site() as site:
        site.score("ann", "ann", "ben")
        viewer = await BareViewer.open(site)
        await viewer.message()
        first = await ask(viewer, boardId="main", userId="ann")
        assert (first["type"], first["rank"], first["score"], first["gapToNext"]) == ("scoreboard_user", 1, 20, None)
        assert site.told.subscribed == 1
        site.score("ben", "ben")
        top, own = await viewer.message(), await viewer.message()
        assert (top["type"], own["type"]) == ("scoreboard_update", "scoreboard_user")
        assert (own["epoch"], own["seq"]) == (top["epoch"], top["seq"])
        assert (own["rank"], own["gapToNext"]) == (2, 10)
        assert own["overtaken"] == [{"userId": "ben", "score": 30, "rank": 1}]
        await site.told.wait(lambda told: told.messages["user"] == 2)


async def test_changes_within_an_interval_are_one_message(mock_clock: MockClock) -> None:
    """Below the first ten rows too, where the top does not change; other viewers are told nothing."""
    async with open_site() as site:
        for number in range(10):
            site.score(f"top-{number}", reason="BIG")
        site.score("ann")
        viewer, other = await BareViewer.open(site), await BareViewer.open(site)
        await viewer.message()
        await other.message()
        await ask(viewer, userId="ann")
        site.score("ann")
        assert (await viewer.message())["score"] == 20
        for _ in range(5):
            site.score("ann")
        mock_clock.jump(0.249)
        await trio.testing.wait_all_tasks_blocked()
        assert site.told.messages["user"] == 2
        mock_clock.jump(0.001)
        assert (await viewer.message())["score"] == 70
        await other.heard()
        assert site.told.messages == {"snapshot": 2, "user": 3}


async def test_places_below_the_top_do_not_hold_up_the_top(mock_clock: MockClock) -> None:
    """Lines have an interval of their own. So a change of the top goes out at once right after a line."""
    async with open_site() as site:
        for number in range(10):
            site.score(f"top-{number}", reason="BIG")
        site.score("ann")
        viewer = await BareViewer.open(site)
        await viewer.message()
        await ask(viewer, userId="ann")
        site.score("ann")
        assert (await viewer.message())["type"] == "scoreboard_user"
        site.score("top-9")
        assert (await viewer.message())["type"] == "scoreboard_update"


async def test_lines_are_told_while_the_top_never_rests(mock_clock: MockClock) -> None:
    """One of each in every interval, the top first."""
    async with open_site() as site:
        site.score("ann", "ben")
        viewer = await BareViewer.open(site)
        await viewer.message()
        await ask(viewer, userId="ann")
        for _ in range(5):
            site.score("ann")
            first, second = await viewer.message(), await viewer.message()
            assert (first["type"], second["type"]) == ("scoreboard_update", "scoreboard_user")
            assert first["seq"] == second["seq"]
            mock_clock.jump(0.25)


async def test_one_connection_may_have_lines_of_several_boards() -> None:
    """A board that is left out is that of the connection. After `unsubscribe` there are no more messages."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        assert (await ask(viewer, userId="ann"))["boardId"] == "main"
        assert (await ask(viewer, userId="ann", boardId="weekly"))["boardId"] == "weekly"
        site.score("ann", board="weekly")
        own = await user_message(viewer)
        assert (own["boardId"], own["rank"], own["seq"]) == ("weekly", 1, 1)
        await viewer.send(TEXT, asking("unsubscribe", userId="ann", boardId="weekly"))
        await viewer.heard()
        assert site.told.subscribed == 1
        site.score("ann", board="weekly")
        site.score("ann")
        assert (await user_message(viewer))["boardId"] == "main"


async def test_a_viewer_that_goes_leaves_no_subscription() -> None:
    """The board is watched no more."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        await ask(viewer, userId="ann")
        assert len(site.board._pinned) == 1
        await viewer.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
        assert (site.told.subscribed, site.board._pinned) == (0, [])


async def test_a_tick_looks_at_subscriptions_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are told, and once."""
    monkeypatch.setattr(bounds, "SLICE_SUBSCRIPTIONS", 3)
    async with open_site() as site:
        site.score("ann")
        viewers = [await BareViewer.open(site) for _ in range(10)]
        for viewer in viewers:
            await viewer.message()
            await ask(viewer, userId="ann")
        site.score("ann")
        for viewer in viewers:
            assert (await user_message(viewer))["score"] == 20
        await site.told.wait(lambda told: told.messages["user"] == 20)


# Slow viewers


async def test_a_slow_viewer_is_told_the_newest_place_once(mock_clock: MockClock) -> None:
    """Whatever happened while its socket was full: one message, after the top, with all who passed."""
    async with open_site() as site:
        site.score("ann", *(f"user-{number}" for number in range(10)))
        witness = await BareViewer.open(site)
        await witness.message()
        slow = await BareViewer.open(site, receive_buffer=4096)
        await slow.message()
        await ask(slow, userId="ann")
        await stall(site, mock_clock, witness)
        for number in range(20):
            site.score("user-7" if number == 3 else "user-9")
            mock_clock.jump(0.25)
            newest = await witness.message()
        seqs: list[int] = []
        while not seqs or seqs[-1] != newest["seq"]:
            message = await slow.message()
            assert message["type"] == "scoreboard_update"
            seqs.append(message["seq"])
        own = await slow.message()
        assert (own["type"], own["seq"], own["rank"]) == ("scoreboard_user", newest["seq"], 3)
        assert [row["userId"] for row in own["overtaken"]] == ["user-7", "user-9"]
        await slow.heard()
        assert site.told.messages["user"] == 2
        crowd(site, 20_000)
        mock_clock.jump(0.25)
        assert (await slow.message())["type"] == "scoreboard_update"


async def test_a_closing_viewer_is_told_nothing_more(mock_clock: MockClock) -> None:
    """The close frame is the last one, also if a line is owed something."""
    async with open_site() as site:
        site.score("ann")
        viewer = await BareViewer.open(site)
        await viewer.message()
        await ask(viewer, userId="ann")
        await viewer.stream.send_all(b"\x81\x00")  # a frame without a mask
        assert (await viewer.frame())[0] == CLOSE
        site.score("ann")
        mock_clock.jump(0.25)
        await trio.testing.wait_all_tasks_blocked()
        assert await viewer.stream.receive_some() == b""
        assert site.told.messages["user"] == 1


# Who may


@pytest.mark.parametrize("public", [True, False])
async def test_a_token_that_names_a_user_is_for_this_user_only(public: bool) -> None:
    """Where reads are public too. The user may be left out then, and only then."""
    tokens = Tokens()
    with_token = {"identify": tokens.identify} if public else {"authorize": tokens.authorize}
    async with open_site(**with_token) as site:
        own, other = [await BareViewer.open(site, ("Authorization", f"Bearer {name}")) for name in ("ann", "any")]
        await own.message()
        await other.message()
        assert (await ask(own))["userId"] == "ann"
        refusal = await ask(own, userId="ben")
        assert refusal == {
            "type": "error",
            "code": "UNAUTHORIZED",
            "message": "This token may only subscribe to its own user.",
            "details": {"field": "userId"},
        }
        assert (await ask(other, userId="ben"))["userId"] == "ben"
        missing = await ask(other)
        assert (missing["code"], missing["details"]) == ("INVALID_REQUEST", {"field": "userId"})
        assert site.told.failures == {"UNAUTHORIZED": 1, "INVALID_REQUEST": 1}


async def test_an_unknown_board_is_refused_and_the_connection_stays() -> None:
    """By name. What was subscribed before goes on."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        await ask(viewer, userId="ann")
        refusal = await ask(viewer, userId="ann", boardId="nowhere")
        assert (refusal["code"], refusal["details"]["field"]) == ("INVALID_REQUEST", "boardId")
        site.score("ann")
        assert (await user_message(viewer))["rank"] == 1


async def test_a_board_that_is_not_served_here_is_refused_as_to_readers() -> None:
    """A board of another shard: the code and the details are those of the API."""

    def check(board_id: str) -> None:
        if board_id == "weekly":
            raise Refused(421, "WRONG_SHARD", "It is elsewhere.", {"boardId": board_id, "shard": "1/2"})

    async with open_site(check=check) as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        refusal = await ask(viewer, userId="ann", boardId="weekly")
        assert (refusal["code"], refusal["details"]) == ("WRONG_SHARD", {"boardId": "weekly", "shard": "1/2"})
        assert (await ask(viewer, userId="ann"))["type"] == "scoreboard_user"


async def test_a_connection_has_a_bounded_number_of_subscriptions() -> None:
    """One more is refused; another connection has its own."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        for number in range(bounds.SUBSCRIPTIONS_PER_VIEWER_MAX):
            assert (await ask(viewer, userId=f"user-{number}"))["type"] == "scoreboard_user"
        assert (await ask(viewer, userId="one-more"))["details"]["maximum"] == bounds.SUBSCRIPTIONS_PER_VIEWER_MAX
        assert (await ask(viewer, userId="user-0"))["type"] == "scoreboard_user"


async def test_nonsense_in_one_piece_is_answered_within_bounds() -> None:
    """Refusals are bounded, and the ping behind all of it is answered."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        await viewer.stream.send_all(client_frame(TEXT, b"x") * 100 + client_frame(PING, b"still there?"))
        refusals = 0
        while (frame := await viewer.frame()) != (PONG, b"still there?"):
            refusals += 1
            assert b"error" in frame[1]
        await viewer.heard()
        assert refusals <= bounds.REPLIES_MAX
