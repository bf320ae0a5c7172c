"""The express lane: the same answers as the other lane, and the manners of HTTP/1.1, over real sockets."""

from __future__ import annotations

import sys

import msgspec
import pytest
import trio
import trio.testing

from engine.limits import INBOX_COMMANDS_MAX
from server.http.client_address import TrustedProxies
from server.http.connection import HttpBounds
from server.http.messages import Request, Response
from server.lanes.express import ExpressLane
from server.lanes.express_loop import ExpressLoop
from tests.server.api.support import READER, Bench
from tests.server.lanes.setting import OTHER, Gate, batch, chunked, get, one, open_setting, post
from tests.server.lanes.support import Answer, connected

WAYS = ("express", "loop", "http")
"""The express lane without its loop and with it, and the other lane."""

CONVERSATION = [
    post(one("ann", "a1")),
    post(one("ann", "a1")),
    post(one("ben", "a1")),
    post(one("ben", "b1", reason="WON", boardId="main")),
    post(one("ben", "b2", boardId="weekly")),
    post(one("ben", "b3", boardId="nowhere")),
    post(one("ben", "b3", reason="NOTHING")),
    post(one("zoë \U0001f600", "z1")),
    post(one("", "e1")),
    post(one("x" * 129, "e2")),
    post(one("a\nb", "e3")),
    post(msgspec.json.encode({"userId": "ann", "actionId": "d", "delta": 5})),
    post(msgspec.json.encode({"userId": 5, "actionId": "d"})),
    post(b"{"),
    post(b""),
    post(b"\xff"),
    post(b"[" * 5_000),
    post(b'{"userId": "ann", "actionId": "d", "score": NaN}'),
    post(one("ann", "n1"), token=None),
    post(one("ann", "n1"), token=READER),
    post(one("ann", "n1"), token="Bearer shop scores:write ben"),
    post(one("ann", "n1"), extra=b"Content-Type: text/csv\r\n"),
    post(one("ann", "n1"), extra=b"Content-Encoding: gzip\r\n"),
    post(one("ann", "n2"), extra=b"Content-Type: application/json; profile=x; charset=UTF-8\r\n"),
    post(one("ann", "n3", reason=None, boardId=None)),
    post(b"\xef\xbb\xbf" + one("ann", "n4")),
    post(one("ann", "n5"), "/scores/increment?_=1"),
    post(one("ann", "n6"), "/scores/increment?dry=1"),
    chunked(one("ann", "c1")),
    batch([{"userId": "ann", "actionId": "x1"}, {"userId": ""}, 5, {"userId": "ann", "actionId": "x1"}]),
    batch([{"userId": "ann", "actionId": "x3", "reason": None}, {"userId": "ann", "actionId": "x4", "boardId": None}]),
    batch([]),
    batch({}),
    batch([{"userId": "u", "actionId": f"m{n}"} for n in range(1_001)]),
    batch([{"userId": f"u{n}", "actionId": f"m{n}"} for n in range(1_000)]),
    batch([{"userId": "ann", "actionId": "y"}], token=None),
    get(),
    get("?limit=3"),
    get("?limit=51"),
    get("?limit=x&boardId=main"),
    get("?boardId=weekly"),
    get("?boardId=nowhere"),
    get("?offset=5"),
    get("?_=5"),
    get("?period=previous"),
    get("?per%69od=previous"),
    get("?v%69ew=live"),
    get("?min%53eq=x"),
    get("?view=live"),
    get("?view=late"),
    get("/"),
    get("/?limit=2"),
    get("", b"If-None-Match: *\r\n"),
    get("", b"Origin: https://example.org\r\n"),
]


async def replies_of(way: str, conversation: list[bytes]) -> list[Answer]:
    async with open_setting(looping=way == "loop") as setting:
        lane = "http" if way == "http" else "express"
        client = await setting.connect(lane)
        answers = [await client.ask(request) for request in conversation]
        asked = sum(setting.lane_count(route, lane) for route in ("/scores/increment", "/scores/increment/batch"))
        asked += setting.lane_count("/scoreboard/top", lane)
        assert asked == len(conversation), "all of them went through the lane that is under test"
        return answers


async def test_all_ways_give_the_same_answers() -> None:
    """Status, body to the byte, and every header but the date; for what is right and for what is wrong."""
    express, loop, http = [await replies_of(way, CONVERSATION) for way in WAYS]
    for request, *answers in zip(CONVERSATION, express, loop, http, strict=True):
        where = request[:200]
        assert all(answer.headers.pop("date").endswith(" GMT") for answer in answers), where
        ours, reacted, other = [(answer.status, answer.body, answer.headers) for answer in answers]
        assert ours == other, where
        assert reacted == other, where
    assert {answer.status for answer in express} == {200, 304, 400, 401, 403, 404, 409}


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Forty at once, for both lanes; the first for the other lane moves the connection there, and no byte is lost."""
    async with open_setting() as setting:
        client = await setting.connect()
        requests = [post(one("ann", f"a{n}")) if n % 4 else OTHER for n in range(1, 41)]
        await client.send(b"".join(requests))
        for n in range(1, 41):
            answer = await client.answer()
            assert answer.status == 200
            if n % 4:
                assert msgspec.json.decode(answer.body)["actionId"] == f"a{n}"
            else:
                assert msgspec.json.decode(answer.body) == {"status": "ok"}
        assert setting.lane_count("/scores/increment", "express") == 3
        assert setting.lane_count("/scores/increment", "http") == 27


async def test_a_request_in_many_pieces_is_one_request() -> None:
    """Byte by byte, head and body."""
    async with open_setting() as setting:
        client = await setting.connect()
        for byte in post(one("ann", "a1")):
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200
        assert setting.bench.logged() == [("a1", "ann", 10)]


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    """And then the answer."""
    async with open_setting() as setting:
        client = await setting.connect()
        body = one("ann", "a1")
        await client.send(post(body, extra=b"Expect: 100-continue\r\n").removesuffix(body))
        assert await client.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"PUT"])
async def test_other_methods_are_the_other_lanes(method: bytes) -> None:
    """They are answered rightly there."""
    async with open_setting() as setting:
        client = await setting.connect()
        await client.send(method + b" /scoreboard/top HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.answer(to_head=method == b"HEAD")
        assert answer.status == {b"HEAD": 200, b"OPTIONS": 204, b"PUT": 405}[method]
        assert setting.lane_count("/scoreboard/top", "express") == 0


async def test_connection_close_is_heeded() -> None:
    """The answer says so too, and the end follows."""
    async with open_setting() as setting:
        client = await setting.connect()
        answer = await client.ask(get("", b"Connection: close\r\n"))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended()


LENGTH_AND_CHUNKED = b"Host: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0"


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        (b"POST /scores/increment HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, None),
        (b"POST /scores/increment HTTP/1.1\r\n" + LENGTH_AND_CHUNKED, 400, None),
        (b"POST /scores/increment HTTP/1.1\nHost: x\n\n", 400, None),
        (b"GET /scoreboard/top HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431, None),
        (b"POST /scores/increment HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413, "PAYLOAD_TOO_LARGE"),
        (b"hello\r\n\r\n", 400, None),
    ],
    ids=["two lengths", "length and chunked", "bare LF", "long head", "long body", "no HTTP"],
)  # fmt: skip
async def test_bad_http_after_a_good_request_is_refused_and_closed(bad: bytes, status: int, code: str | None) -> None:
    """The good one is answered, the bad one is told why, and nothing is counted for it."""
    async with open_setting() as setting:
        client = await setting.connect()
        await client.send(post(one("ann", "a1")) + bad)
        assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.code()) == (status, code or "INVALID_REQUEST")
        assert await client.ended()
        assert setting.bench.logged() == [("a1", "ann", 10)]


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    """408, and nothing was counted."""
    async with open_setting(HttpBounds(body_seconds_max=0.05)) as setting:
        client = await setting.connect()
        await client.send(post(one("ann", "a1"))[:-1])
        assert (await client.answer()).status == 408
        assert await client.ended()
        assert setting.bench.logged() == []


async def test_an_idle_connection_holds_nothing_of_its_last_request() -> None:
    """A thousand of them, after a large batch each, would hold gigabytes that no bound knows of."""
    bodies: list[bytes] = []

    async def answer(request: Request, _lane: str) -> Response:
        bodies.append(request.body)
        return Response(200)

    bench = Bench()
    lane = ExpressLane(answer, TrustedProxies(), ExpressLoop(bench.pipeline, TrustedProxies()))
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        await client.send(post(b"x" * 100_000))
        assert await connection.read_head()
        nursery.start_soon(lane.serve, connection)
        assert (await client.answer()).status == 200
        await trio.testing.wait_all_tasks_blocked()
        references = sys.getrefcount(bodies[0])
        assert references == 2, "the list's and the call's own"
        nursery.cancel_scope.cancel()


async def test_draining_answers_what_is_in_flight_and_closes() -> None:
    """A request that the actor still works on is answered, with `Connection: close`."""
    async with open_setting() as setting:
        gate = Gate(setting.bench)
        client = await setting.connect()
        await client.send(post(one("ann", "a1")))
        await gate.wait_reached()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setting.listener.drain, 10.0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            gate.open()
            answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended()


async def test_an_overloaded_server_says_when_to_come_back() -> None:
    """503 with Retry-After, through this lane as through any."""
    async with open_setting() as setting:
        setting.bench.actor._waiting = INBOX_COMMANDS_MAX
        client = await setting.connect()
        answer = await client.ask(post(one("ann", "a1")))
        assert (answer.status, answer.code(), answer.headers["retry-after"]) == (503, "OVERLOADED", "1")
        setting.bench.actor._waiting = 0
        assert (await client.ask(post(one("ann", "a1")))).status == 200
