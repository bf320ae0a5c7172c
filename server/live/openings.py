"""How a request opens the live channel: in which of its forms, and the viewer that it makes.

opening = read_opening(head, as_events=False, board_ids=scoreboard.served)
viewer = viewer_of(opening, stream, channel, audience, address, lease=lease, user_id=user_id, …)

WebSocket             `server.live.handshake`    all of a board's first rows, or deltas
server-sent events    `server.live.events`       the same, without deltas
event feed            `server.live.event_feed`   a board as a contest
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from server.access.lease import Lease
from server.http.messages import Refused, RequestHead, invalid
from server.live import handshake
from server.live.audience import Audience
from server.live.clics_ids import board_of
from server.live.editions import AnyChannel, AnyEdition
from server.live.event_feed import FeedStream, is_feed, read_feed
from server.live.event_viewer import EventViewer, FeedViewer
from server.live.events import EventStream, read_stream
from server.live.handshake import Upgrade
from server.live.viewers import Viewer, take_over

Opening = Upgrade | EventStream
"""A correct request for the live channel."""


def read_opening(head: RequestHead, *, as_events: bool, board_ids: Callable[[], Iterable[str]]) -> Opening:
    """Check a request. `as_events`: it is not for a WebSocket. Raises `Refused`."""
    if not as_events:
        return handshake.read_upgrade(head)
    if is_feed(head.path):
        return read_feed(head, lambda contest_id: board_of(contest_id, board_ids()))
    return read_stream(head)


def no_board(opening: Opening) -> Refused:
    """Say that there is no such board: in a path it is not found, in a query it is invalid."""
    board_id = opening.view.board_id
    if isinstance(opening, FeedStream):
        return Refused(404, "NOT_FOUND", "There is no such board.", {"boardId": board_id})
    return invalid("boardId", f"There is no board {board_id!r}.")


def is_known(opening: Opening, first: AnyEdition) -> bool:
    """Whether who asks has the first edition already. Raises `Refused`."""
    return isinstance(opening, EventStream) and first.is_known(opening.known)


def viewer_of(
    opening: Opening, stream: trio.SocketStream, channel: AnyChannel, audience: Audience[Viewer], address: str, *,
    lease: Lease | None, user_id: str | None, on_gone: Callable[[Viewer], None], left: Callable[[], None],
) -> Viewer:  # fmt: skip
    """Make the viewer. It takes the connection out of `stream`."""
    kind = Viewer
    if isinstance(opening, EventStream):
        kind = FeedViewer if isinstance(opening, FeedStream) else EventViewer
    deltas = isinstance(opening, Upgrade) and opening.subprotocol == handshake.DELTA
    return kind(
        take_over(stream), channel, audience, address, trio.current_time(), deltas=deltas, lease=lease, user_id=user_id,
        on_gone=on_gone, left=left,
    )  # fmt: skip
