"""GET /boards/{boardId}/export: every row of a board as CSV or NDJSON, sent while it is made.

    request ──► place ──► copy of the board ──► sorted in a thread ──► head ──► part, part, part … ──► place is free

Rules:
- An export shows one moment: that of the copy (`engine.ranking_copy`). It always comes to its end, however scores move.
  Names are of now, as in a walk, and those that the caller may see.
- It shows what the caller may see: of a frozen board the frozen rows, unless a token asks for the present.
- A part is EXPORT_PART_ROWS, less than a millisecond of work, and while others have work the export rests after each.
- No second part is made before the connection took the first. So a slow client costs its copy and one part, and the
  connection's deadlines end it.
- At most EXPORTS_MAX go on at once, EXPORTS_PER_ADDRESS_MAX of one client, none longer than EXPORT_SECONDS_MAX. So
  nobody keeps a place by reading slowly. A place whose answer was never sent is free again after that time, too.
- An export that can't go on cuts the connection, so that no client takes half of it for all.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import trio

from engine.board import Board
from engine.board_rules import PastPeriod
from engine.ranking import FinalRow
from engine.ranking_copy import RankingCopy, copy_of
from engine.threads import run
from server import bounds
from server.access.auth import Principal
from server.api.dependencies import Dependencies
from server.api.names import CallerNames
from server.api.periods import Periods, named_period
from server.api.views import Views
from server.export.columns import BOARD, board_rows
from server.export.texts import FORMATS, Text
from server.http.client_address import address_group
from server.http.messages import NO_STORE, Headers, Refused, Request, Response, invalid, overloaded
from server.http.target import query_values
from server.metrics import LONG_READS, Metrics

OTHERS_SECONDS = 0.000_2
"""A checkpoint that took longer was used by others."""

REST = 4
"""A part costs about as much again to send. So an export beside others has a third of the loop."""

EXPORT = LONG_READS[0]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class ExportCut(Exception):
    """An export took longer than it may."""


class Place:
    """One of the places of exports. To close it twice does no harm."""

    def __init__(self, places: Places, group: str, now_s: float) -> None:
        self._places = places
        self.group = group
        self.since_s, self.until_s = now_s, now_s + bounds.EXPORT_SECONDS_MAX

    def close(self) -> None:
        self._places.free(self)


class Places:
    """The exports that go on. `clock_s` never goes back."""

    def __init__(self, metrics: Metrics, clock_s: Callable[[], float]) -> None:
        self.taken: set[Place] = set()
        self._metrics, self._clock_s = metrics, clock_s

    def take(self, address: str) -> Place:
        """Take a place. Raises `Refused` if there are as many exports as may be."""
        now_s = self._clock_s()
        for place in [place for place in self.taken if now_s >= place.until_s]:
            self.free(place)
        group = address_group(address)
        if sum(place.group == group for place in self.taken) >= bounds.EXPORTS_PER_ADDRESS_MAX:
            self._metrics.long_read_refused(EXPORT)
            raise overloaded("There are too many exports from this address.")
        if len(self.taken) >= bounds.EXPORTS_MAX:
            self._metrics.long_read_refused(EXPORT)
            raise overloaded("This node sends as many exports as it can.")
        place = Place(self, group, now_s)
        self.taken.add(place)
        self._metrics.long_reads_running(EXPORT, len(self.taken))
        return place

    def free(self, place: Place) -> None:
        """Give a place back. A second call does nothing."""
        if place in self.taken:
            self.taken.remove(place)
            self._metrics.long_reads_running(EXPORT, len(self.taken))
            self._metrics.long_read(EXPORT, self._clock_s() - place.since_s)


class ExportStream:
    """The body of an export. See `server.http.messages.Stream`."""

    def __init__(
        self, place: Place, text: Text, parts: AsyncIterator[list[FinalRow]], name_of: Callable[[str], str | None],
        now_s: Callable[[], float],
    ) -> None:  # fmt: skip
        self._place = place
        self._text = text
        self._parts = parts
        self._name_of = name_of
        self._now_s = now_s
        self._head = text.head()
        self._took_s = 0.0

    async def part(self) -> bytes:
        """Give the next part, empty after the last one."""
        if self._now_s() >= self._place.until_s:
            raise ExportCut(f"an export takes longer than {bounds.EXPORT_SECONDS_MAX:g} s")
        await self._let_others()
        data, self._head = self._head, b""
        async for rows in self._parts:
            # An empty part is no end: a period has rows of users who are not shown.
            began_s = trio.current_time()
            data += self._text.rows(board_rows(rows, self._name_of))
            self._took_s = trio.current_time() - began_s
            if data:
                break
        return data

    async def _let_others(self) -> None:
        """Let the other tasks run. If they have anything to do, rest for REST times what the last rows took to make."""
        before_s = trio.current_time()
        await trio.lowlevel.checkpoint()
        if trio.current_time() - before_s > OTHERS_SECONDS:
            await trio.sleep(REST * self._took_s)

    def close(self) -> None:
        self._place.close()


class NoStream:
    """The body of an answer to HEAD."""

    async def part(self) -> bytes:
        return b""

    def close(self) -> None:
        """Do nothing."""


class Exports:
    """Answers to the export of a board."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._checks = dependencies.checks
        self._log = dependencies.log
        self._clock_s = dependencies.clock_s
        self._views = Views(dependencies)
        self._names = CallerNames(dependencies)
        self._periods = Periods(dependencies.scoreboard, dependencies.periods)
        self.places = Places(dependencies.metrics, dependencies.clock_s)

    async def export(self, request: Request, caller: Principal) -> Response:
        """Answer with all rows, of now or of a past period. Raises `Refused`."""
        values = query_values(request.query, ("format", "period"))
        board_id = request.path_params["boardId"]
        self._checks.check_board(board_id)
        served = self._scoreboard.board(board_id)
        if served is None:
            raise Refused(404, "NOT_FOUND", "There is no such board.", {"boardId": board_id})
        form = values.get("format", "")
        if form not in FORMATS:
            what = "format is missing." if "format" not in values else "There is no such format."
            raise invalid("format", what, allowed=list(FORMATS))
        sight = await self._names.of(request, caller)
        board = await self._views.of(request, caller, served)
        if isinstance(board, Response):
            return board
        past = named_period(board_id, board, values["period"]) if "period" in values else None
        text = FORMATS[form](BOARD)
        headers = self._headers(board, past, form)
        if request.method == "HEAD":
            return Response(200, b"", text.content_type, headers, stream=NoStream())
        place = self.places.take(request.address)
        try:
            parts = await self._present_parts(board) if past is None else await self._past_parts(board, past)
        except BaseException:
            place.close()
            raise
        stream = ExportStream(place, text, parts, self._names.shown(sight).name, self._clock_s)
        return Response(200, b"", text.content_type, headers, stream=stream)

    async def _present_parts(self, board: Board) -> AsyncIterator[list[FinalRow]]:
        copied = copy_of(board)
        await run(copied.sort, blocks=self._log.blocks)
        return _each(copied)

    async def _past_parts(self, board: Board, past: PastPeriod) -> AsyncIterator[list[FinalRow]]:
        # The first rows are read before the head is sent: so a file that can't be read is an answer.
        first = await self._periods.rows(board.board_id, past, 0, bounds.EXPORT_PART_ROWS)
        return self._each_past(board, past, first)

    async def _each_past(
        self, board: Board, past: PastPeriod, first: list[FinalRow]
    ) -> AsyncIterator[list[FinalRow]]:  # fmt: skip
        yield first
        for start in range(bounds.EXPORT_PART_ROWS, self._periods.count(board.board_id, past), bounds.EXPORT_PART_ROWS):
            yield await self._periods.rows(board.board_id, past, start, bounds.EXPORT_PART_ROWS)

    def _headers(self, board: Board, past: PastPeriod | None, form: str) -> Headers:
        scoreboard = self._scoreboard
        epoch, seq = (scoreboard.epoch, board.seq) if past is None else (scoreboard.epoch_of(past.seq), past.seq)
        name = f"{board.board_id}{f'-{past.period.id}' if past is not None else ''}.{form}"
        plain = _UNSAFE.sub("_", name)
        return (
            ("content-disposition", f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"),
            ("x-scoreboard-epoch", str(epoch)),
            ("x-scoreboard-seq", str(seq)),
            *NO_STORE,
        )


async def _each(copied: RankingCopy) -> AsyncIterator[list[FinalRow]]:
    for rows in copied.parts(bounds.EXPORT_PART_ROWS):
        yield rows
