"""GET /scoreboard/top?asOfSeq= and ?asOf=: who may ask, for what, and what is kept. What reads the past is played."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engine.erased import Erasures
from engine.errors import Overloaded
from server import bounds
from server.past.questions import Failed, NoBoard, NotKept, Question, Reply, Top
from tests.server.api.support import READER, START_MS, WRITER, Bench, both_ways, open_bench
from tests.server.lanes.setting import open_setting
from tests.server.lanes.support import PATIENCE_SECONDS

TOP = "/scoreboard/top"
BY_SEQ = f"{TOP}?asOfSeq=1"
BY_TIME = f"{TOP}?asOf={START_MS}"


class Played:
    """Answers with the number of the question, or as it is told."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.left = 0
        self.reply: Reply | Exception | None = None
        self.hold = trio.Event()
        self.hold.set()

    async def ask(self, question: Question, /) -> Reply:
        self.asked.append(question)
        try:
            await self.hold.wait()
        except trio.Cancelled:
            self.left += 1
            raise
        if isinstance(self.reply, Exception):
            raise self.reply
        body = msgspec.Raw(b'{"seq":%d}' % len(self.asked))
        return Top(len(self.asked), body) if self.reply is None else self.reply


async def begin(bench: Bench, users: int = 2) -> None:
    for number in range(users):
        await bench.increment(f"u{number}", f"a{number}")


@both_ways
async def test_it_needs_a_token_that_may_read_also_where_reads_are_public(through_quart: bool) -> None:
    """Nothing is read before that is known."""
    for public_reads in (True, False):
        played = Played()
        async with open_bench(through_quart=through_quart, public_reads=public_reads, past=played) as bench:
            await begin(bench)
            for target in (BY_SEQ, BY_TIME):
                assert (await bench.ask("GET", target)).status == 401
                refused = await bench.ask("GET", target, token=WRITER)
                assert (refused.status, refused.details["anyOf"]) == (403, ["scores:read"])
            assert played.asked == []
            answer = await bench.ask("GET", BY_SEQ, token=READER)
            assert (answer.status, answer.json, answer.headers["cache-control"]) == (200, {"seq": 1}, "no-store")


@both_ways
async def test_what_is_asked_wrongly_is_refused_with_the_field(through_quart: bool) -> None:
    """A parameter that contradicts, a seq or time to come, and what is neither."""
    played = Played()
    async with open_bench(through_quart=through_quart, past=played) as bench:
        await begin(bench)
        for query, field in (
            ("asOfSeq=1&asOf=0", "asOf"),
            ("asOfSeq=1&period=previous", "period"),
            ("asOf=0&view=live", "view"),
            ("view=live&asOf=0", "view"),
            ("asOfSeq=1&minSeq=1", "minSeq"),
            ("asOfSeq=1&minEpoch=1", "minEpoch"),
            ("asOfSeq=3", "asOfSeq"),
            ("asOfSeq=0", "asOfSeq"),
            ("asOfSeq=x", "asOfSeq"),
            ("asOfSeq=9999999999999999", "asOfSeq"),
            ("asOfSeq=1&asOfSeq=1", "asOfSeq"),
            ("asOfSeq=1&limit=0", "limit"),
            ("asOfSeq=1&boardId=none", "boardId"),
            (f"asOf={START_MS + 1}", "asOf"),
            ("asOf=yesterday", "asOf"),
            ("asOf=2025-12-15T12:34:56+01:00", "asOf"),
            ("asOf=9999-12-31T23:59:59-14:00", "asOf"),
        ):
            reply = await bench.ask("GET", f"{TOP}?{query}", token=READER)
            assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", field), query
        assert (await bench.ask("GET", "/scoreboard?asOfSeq=1", token=READER)).status == 400
        assert played.asked == []


@both_ways
async def test_a_time_is_iso_8601_or_ms(through_quart: bool) -> None:
    """In UTC unless it says otherwise; a parameter's name may be encoded."""
    played = Played()
    async with open_bench(through_quart=through_quart, past=played) as bench:
        await begin(bench)
        for text in ("2025-12-15T12:34:56Z", "2025-12-15T13:34:56%2B01:00", "2025-12-15T12:34:56", str(START_MS)):
            bench.now_s += bounds.PAST_KEPT_SECONDS
            reply = await bench.ask("GET", f"{TOP}?as%4Ff={text}&boardId=weekly&limit=3", token=READER)
            assert reply.status == 200
        assert set(played.asked) == {Question("weekly", 3, time_ms=START_MS)}


@both_ways
async def test_answers_are_kept_for_a_time_and_in_a_number(
    through_quart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """By board, rows and seq; those of a time only if an event came after it."""
    monkeypatch.setattr(bounds, "PAST_KEPT_MAX", 2)
    played = Played()
    async with open_bench(through_quart=through_quart, past=played) as bench:
        await begin(bench)

        async def number(target: str) -> int:
            answer: int = (await bench.ask("GET", target, token=READER)).json["seq"]
            return answer

        assert [await number(BY_SEQ), await number(BY_SEQ)] == [1, 1]
        assert [await number(f"{BY_SEQ}&limit=3"), await number(f"{BY_SEQ}&limit=10")] == [2, 1]
        assert [await number(f"{BY_SEQ}&boardId=weekly"), await number(BY_SEQ)] == [3, 1]
        assert await number(f"{BY_SEQ}&limit=3") == 4, "the one that was unused for longest made room"
        bench.now_s += bounds.PAST_KEPT_SECONDS
        assert await number(BY_SEQ) == 5
        assert [await number(BY_TIME), await number(BY_TIME)] == [6, 7]
        bench.now_s += 1
        await bench.increment("u0", "later")
        assert [await number(BY_TIME), await number(BY_TIME)] == [8, 8]
        bench.scoreboard.erasures = Erasures(1, bench.scoreboard.seq)
        assert [await number(BY_TIME), await number(BY_TIME)] == [9, 9], "the answer before may show an erased user"


@both_ways
@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (NotKept(), 410, "NO_LONGER_KEPT"),
        (NoBoard(1), 404, "NOT_FOUND"),
        (Failed("damaged"), 503, "PAST_UNAVAILABLE"),
        (Overloaded("too many ask for the past"), 503, "OVERLOADED"),
    ],
)
async def test_what_can_not_be_read_is_answered_so(
    reply: Reply | Exception, status: int, code: str, through_quart: bool
) -> None:  # fmt: skip
    """And is not kept; 503 says when to come again."""
    played = Played()
    played.reply = reply
    async with open_bench(through_quart=through_quart, past=played) as bench:
        await begin(bench)
        for _ in range(2):
            answer = await bench.ask("GET", BY_SEQ, token=READER)
            assert (answer.status, answer.code) == (status, code)
            assert ("retry-after" in answer.headers) == (status == 503)
        assert len(played.asked) == 2
        assert b"damaged" not in answer.body, "the operator's log has it"


@both_ways
async def test_a_node_without_a_log_names_the_leader(through_quart: bool) -> None:
    """A replica of one shard."""
    async with open_bench(through_quart=through_quart) as bench:
        await begin(bench)
        answer = await bench.ask("GET", BY_SEQ, token=READER)
        assert (answer.status, answer.code) == (421, "NOT_LEADER")


def request(target: str, more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {READER}\r\n{more}\r\n".encode()


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_a_client_that_goes_away_frees_its_place(how: str, tmp_path: Path) -> None:
    """Though its connection would be read only after the answer; others are served meanwhile."""
    played = Played()
    async with open_setting(past=played) as setting:
        await begin(setting.bench)
        played.hold = trio.Event()
        with trio.fail_after(PATIENCE_SECONDS):
            client = await setting.parked()
            await client.send(request(BY_SEQ))
            await trio.testing.wait_all_tasks_blocked()
            assert len(played.asked) == 1
            other = await setting.connect()
            assert (await other.ask(request(TOP))).status == 200
            await (client.stream.aclose() if how == "closes" else client.reset())
            while not played.left:
                await trio.testing.wait_all_tasks_blocked()
            played.hold.set()
            assert (await other.ask(request(BY_SEQ))).status == 200


async def test_a_pipelined_request_is_answered_after_it() -> None:
    """Data that comes meanwhile is no end."""
    played = Played()
    async with open_setting(past=played) as setting:
        await begin(setting.bench)
        played.hold = trio.Event()
        with trio.fail_after(PATIENCE_SECONDS):
            client = await setting.connect()
            await client.send(request(BY_SEQ))
            await trio.testing.wait_all_tasks_blocked()
            await client.send(request(f"{TOP}?limit=1"))
            await trio.testing.wait_all_tasks_blocked()
            played.hold.set()
            assert (await client.answer()).body == b'{"seq":1}'
            second = msgspec.json.decode((await client.answer()).body)
            assert [row["userId"] for row in second["entries"]] == ["u0"]
            assert played.left == 0


async def test_metrics_say_how_many_wait_and_how_long_it_took() -> None:
    """Answers that are kept are no reads; one that is refused is counted, and so is a client that left."""
    played = Played()
    async with open_bench(past=played) as bench:
        await begin(bench)

        def figures() -> tuple[float, float, float]:
            return (
                bench.metrics.value("scoreboard_long_reads_running", kind="as_of"),
                bench.metrics.value("scoreboard_long_reads_refused_total", kind="as_of"),
                bench.metrics.value("scoreboard_long_read_seconds_count", kind="as_of"),
            )

        for _ in range(2):
            assert (await bench.ask("GET", BY_SEQ, token=READER)).status == 200
        assert figures() == (0, 0, 1)
        played.hold = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(bench.ask, "GET", BY_TIME, token=READER))
            await trio.testing.wait_all_tasks_blocked()
            assert figures() == (1, 0, 1)
            nursery.cancel_scope.cancel()
        assert figures() == (0, 0, 2)
        played.hold.set()
        played.reply = Overloaded("too many ask for the past")
        assert (await bench.ask("GET", BY_TIME, token=READER)).status == 503
        assert figures() == (0, 1, 3)
