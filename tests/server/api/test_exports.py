"""GET /boards/{boardId}/export: all rows of one moment, sent while they are made, by a bounded number of exports."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from server import bounds
from server.api.exports import ExportCut, Places
from server.http.connection import HttpBounds
from server.http.messages import Refused, Request
from server.metrics import Metrics
from tests.server.api.support import KEEPER, READER, REGISTRAR, WRITER, Bench, both_ways, open_bench, whole
from tests.server.lanes.setting import open_setting
from tests.server.lanes.support import PATIENCE_SECONDS, Client

EXPORT = "/boards/main/export?format=csv"
PARTS = ("/boards/main/export", "format=csv")
HEAD = "rank,userId,displayName,score,updatedAt,reachedSeq"
AT = "2025-12-15T12:34:56.000Z"


async def fill(bench: Bench, users: int, board: str = "main") -> None:
    """Users of equal scores: `u0` was first."""
    for start in range(0, users, 1000):
        numbers = range(start, min(users, start + 1000))
        items: list[object] = [
            {"userId": f"u{number}", "actionId": f"{board}{number}", "boardId": board} for number in numbers
        ]
        reply = await bench.ask("POST", "/scores/increment/batch", items, token=WRITER)
        assert {item["status"] for item in reply.json} == {200}


def read(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode(), newline="")))


@both_ways
async def test_all_rows_come_as_csv_or_ndjson(through_quart: bool) -> None:
    """With the position that they show, and a name for the file. HEAD has the same headers and no rows."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 2)
        await bench.ask("PUT", "/users/u1", {"displayName": 'Ann, "A"'}, token=REGISTRAR)
        reply = await bench.ask("GET", EXPORT)
        assert reply.body.decode().split("\r\n") == [
            HEAD, f"1,u0,,10,{AT},1", f'2,u1,"Ann, ""A""",10,{AT},2', ""
        ]  # fmt: skip
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
        assert reply.headers["content-disposition"] == "attachment; filename=\"main.csv\"; filename*=UTF-8''main.csv"
        assert (reply.headers["x-scoreboard-epoch"], reply.headers["x-scoreboard-seq"]) == ("1", "3")
        assert reply.headers["cache-control"] == "no-store"
        assert "content-length" not in reply.headers
        lines = await bench.ask("GET", "/boards/export?boardId=main&format=ndjson")
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line) for line in lines.body.splitlines()][1] == {
            "rank": 2, "userId": "u1", "displayName": 'Ann, "A"', "score": 10, "updatedAt": AT, "reachedSeq": 2
        }  # fmt: skip
        head = await bench.ask("HEAD", EXPORT)
        assert (head.status, head.body) == (200, b"")
        different = ("x-request-id",)
        assert {name: text for name, text in head.headers.items() if name not in different} == {
            name: text for name, text in reply.headers.items() if name not in different
        }
        empty = await bench.ask("GET", "/boards/weekly/export?format=csv")
        assert empty.body.decode() == f"{HEAD}\r\n"
        assert bench.pipeline is not None


@both_ways
async def test_what_is_asked_wrongly_is_refused(through_quart: bool) -> None:
    """With the field at fault, before anything is copied."""
    async with open_bench(through_quart=through_quart) as bench:
        for target, status, field in (
            ("/boards/main/export", 400, "format"),
            ("/boards/main/export?format=parquet", 400, "format"),
            ("/boards/main/export?format=csv&limit=3", 400, "limit"),
            ("/boards/main/export?format=csv&view=late", 400, "view"),
            ("/boards/nowhere/export?format=csv", 404, None),
            ("/boards/main/export?format=csv&period=w1", 404, "period"),
            ("/boards/main/export?format=csv&view=live", 401, None),
        ):
            reply = await bench.ask("GET", target)
            assert (reply.status, reply.details.get("field")) == (status, field), target
        assert (await bench.ask("GET", f"{EXPORT}&view=live", token=WRITER)).status == 403
        assert (await bench.ask("POST", EXPORT, {})).status == 405
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        assert (await bench.ask("GET", EXPORT)).status == 401
        assert (await bench.ask("GET", EXPORT, token=REGISTRAR)).status == 403
        assert (await bench.ask("GET", EXPORT, token=READER)).status == 200


async def test_the_rows_are_of_one_moment_though_all_scores_move() -> None:
    """More users move than a walk could bear; names are of now."""
    async with open_bench() as bench:
        users = 2 * bounds.EXPORT_PART_ROWS + 1
        await fill(bench, users)
        response = await bench.pipeline.answer(Request("GET", *PARTS), "direct")
        assert response.stream is not None
        first = await response.stream.part()
        for number in range(users):
            await bench.increment(f"u{number}", f"more{number}")
        await bench.ask("PUT", f"/users/u{users - 1}", {"displayName": "Zoe"}, token=REGISTRAR)
        rows = read(first + await whole(response.stream))
        assert [(int(row["rank"]), row["userId"], row["score"]) for row in rows] == [
            (number + 1, f"u{number}", "10") for number in range(users)
        ]
        assert rows[-1]["displayName"] == "Zoe"


@both_ways
async def test_a_freeze_holds_for_the_public(through_quart: bool) -> None:
    """The rows of then; who may read and asks for it gets those of now."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.log_boards()
        await fill(bench, 2)
        before = (await bench.ask("GET", EXPORT)).body
        await bench.ask("POST", "/boards/main/freeze", token=KEEPER)
        await bench.increment("u1", "hidden")
        await bench.increment("new", "hidden too")
        for token in (None, WRITER, READER):
            assert (await bench.ask("GET", EXPORT, token=token)).body == before
        live = read((await bench.ask("GET", f"{EXPORT}&view=live", token=READER)).body)
        assert [(row["userId"], row["score"]) for row in live] == [("u1", "20"), ("u0", "10"), ("new", "10")]


@both_ways
@pytest.mark.parametrize("names", ["initials", "hidden"])
async def test_the_public_sees_the_names_that_it_may(names: str, through_quart: bool, tmp_path: Path) -> None:
    """A token with `scores:read` sees all, that of a user its own, of now and of a past period."""
    async with open_bench(through_quart=through_quart, names=names, periods=tmp_path) as bench:
        await bench.log_boards()
        await fill(bench, 2)
        for user, name in (("u0", "Ann Kathrin"), ("u1", "Ben")):
            await bench.ask("PUT", f"/users/{user}", {"displayName": name}, token=REGISTRAR)
        short = ["A. K.", "B."] if names == "initials" else ["", ""]
        for target in (EXPORT, f"{EXPORT}&period=previous"):
            for token, shown in (
                (None, short), (WRITER, short), (READER, ["Ann Kathrin", "Ben"]),
                ("Bearer phone scores:write u0", ["Ann Kathrin", short[1]]),
            ):  # fmt: skip
                body = (await bench.ask("GET", target, token=token)).body
                assert [row["displayName"] for row in read(body)] == shown
            await bench.ask("POST", "/boards/main/reset", token=KEEPER)


@both_ways
async def test_a_past_period_is_exported_from_its_file(through_quart: bool, tmp_path: Path) -> None:
    """Without the inactive users, and with a name for the file that says which period it is."""
    async with open_bench(through_quart=through_quart, periods=tmp_path) as bench:
        await bench.log_boards()
        body = {"points": {"ACTION_COMPLETED": 10}, "period": {"every": "day"}}
        assert (await bench.ask("PUT", "/boards/a%2Fb", body, token=KEEPER)).status == 201
        users = bounds.EXPORT_PART_ROWS + 2
        await fill(bench, users, "a/b")
        reset = await bench.ask("POST", "/boards/reset?boardId=a/b", token=KEEPER)
        assert reset.status == 200
        await bench.ask("PUT", "/users/u0", {"active": False}, token=REGISTRAR)
        target = "/boards/export?boardId=a/b&format=csv&period=previous"
        reply = await bench.ask("GET", target)
        rows = read(reply.body)
        assert [(row["rank"], row["userId"]) for row in rows] == [
            (str(number + 1), f"u{number}") for number in range(1, users)
        ]
        assert (
            "filename=\"a_b-2025-12-15.csv\"; filename*=UTF-8''a%2Fb-2025-12-15.csv"
            in (reply.headers["content-disposition"])
        )
        assert bench.kept is not None
        bench.kept.file(reset.json["seq"]).unlink()
        bench.kept.store.close()
        gone = await bench.ask("GET", target)
        assert (gone.status, gone.code) == (503, "PERIOD_UNAVAILABLE")


async def test_a_place_is_taken_until_the_stream_is_closed_and_no_longer_than_it_may() -> None:
    """So many at once of one client, and in all; a place whose answer was never sent is free again."""
    async with open_bench() as bench:
        await fill(bench, 1)

        async def begin(address: str) -> Any:
            request = Request("GET", *PARTS, address=address)
            response = await bench.pipeline.answer(request, "direct")
            return response.stream if response.status == 200 else response

        streams = [await begin(f"192.0.2.{number % 2}") for number in range(bounds.EXPORTS_MAX)]
        assert bounds.EXPORTS_MAX == 2 * bounds.EXPORTS_PER_ADDRESS_MAX
        for address, words in (("192.0.2.0", b"from this address"), ("192.0.2.9", b"as many exports as it can")):
            refused = await begin(address)
            assert (refused.status, refused.code) == (503, "OVERLOADED")
            assert words in refused.body
            assert dict(refused.headers)["retry-after"] == "1"
        await whole(streams[0])
        streams[0].close()
        again = await begin("192.0.2.9")
        bench.now_s += bounds.EXPORT_SECONDS_MAX
        with pytest.raises(ExportCut):
            await again.part()
        assert await whole(await begin("192.0.2.9"))


def test_addresses_of_one_customer_share_their_places() -> None:
    """Whoever has an IPv6 network has as many addresses as they like."""
    places = Places(Metrics(), lambda: 0.0)
    for number in range(bounds.EXPORTS_PER_ADDRESS_MAX):
        places.take(f"2001:db8::{number}")
    with pytest.raises(Refused):
        places.take("2001:db8::ffff")
    places.take("2001:db8:1::1")


def test_metrics_say_how_many_exports_go_on_and_how_long_they_took() -> None:
    """A place that is closed twice, or late, counts once; what found no place counts as refused."""
    metrics, now_s = Metrics(), 0.0
    places = Places(metrics, lambda: now_s)

    def figures() -> tuple[float, float, float, float]:
        return (
            metrics.value("scoreboard_long_reads_running", kind="export"),
            metrics.value("scoreboard_long_reads_refused_total", kind="export"),
            metrics.value("scoreboard_long_read_seconds_count", kind="export"),
            metrics.value("scoreboard_long_read_seconds_sum", kind="export"),
        )

    first, second = places.take("192.0.2.1"), places.take("192.0.2.1")
    with pytest.raises(Refused):
        places.take("192.0.2.1")
    assert figures() == (2, 1, 0, 0)
    now_s = 3.0
    first.close()
    first.close()
    assert figures() == (1, 1, 1, 3)
    now_s = bounds.EXPORT_SECONDS_MAX
    third = places.take("192.0.2.2")
    assert figures() == (1, 1, 2, 3 + now_s)
    second.close()
    third.close()
    assert figures() == (0, 1, 3, 3 + now_s)


def request(target: str = EXPORT) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_over_a_connection_the_rows_come_in_chunks_and_the_connection_goes_on() -> None:
    """Also to a client of HTTP/1.0, whose answer ends with the connection."""
    async with open_setting() as setting:
        await fill(setting.bench, 1_000)
        with trio.fail_after(PATIENCE_SECONDS):
            client = await setting.connect("http")
            for _ in range(2):
                answer = await client.ask(request())
                assert answer.headers["transfer-encoding"] == "chunked"
                assert len(read(answer.body)) == 1_000
            await client.send(request().replace(b"GET", b"HEAD"))
            head = await client.answer(to_head=True)
            assert (head.status, head.headers["content-disposition"]) == (200, answer.headers["content-disposition"])
            assert (await client.ask(request("/healthz"))).status == 200
            old = await trio.open_tcp_stream("127.0.0.1", setting.port)
            await old.send_all(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
            received = b""
            while data := await old.receive_some():
                received += data
            assert len(read(received.partition(b"\r\n\r\n")[2])) == 1_000


@pytest.mark.parametrize("how", ["leaves", "does not read"])
async def test_a_client_that_leaves_or_does_not_read_frees_its_place(how: str) -> None:
    """Its connection is cut after the deadline of a write, and the others are served meanwhile."""
    async with open_setting(HttpBounds(send_seconds_max=0.3)) as setting:
        bench = setting.bench
        await fill(bench, 60_000)
        places = bench.pipeline._handlers["export"].__self__.places  # type: ignore[attr-defined]
        with trio.fail_after(PATIENCE_SECONDS):
            slow = [await setting.connect("http") for _ in range(bounds.EXPORTS_PER_ADDRESS_MAX)]
            for client in slow:
                client.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4_096)
                await client.send(request())
            while len(places.taken) < len(slow):
                await trio.testing.wait_all_tasks_blocked()
            refused = await (await setting.connect("http")).ask(request())
            assert refused.status == 503
            assert (await (await setting.connect()).ask(request("/scoreboard/top"))).status == 200
            if how == "leaves":
                for client in slow:
                    await client.reset()
            while places.taken:  # noqa: ASYNC110  # only the sockets say when
                await trio.sleep(0.02)
            if how == "does not read":
                assert all([await Client.was_reset(client) for client in slow])
            assert (await (await setting.connect("http")).ask(request())).status == 200


async def test_an_export_that_takes_too_long_cuts_the_connection() -> None:
    """No client takes half of a board for all of it."""
    async with open_setting() as setting:
        await fill(setting.bench, 60_000)
        with trio.fail_after(PATIENCE_SECONDS):
            client = await setting.connect("http")
            client.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4_096)
            await client.send(request())
            await client.exactly(100)
            setting.bench.now_s += bounds.EXPORT_SECONDS_MAX
            assert await client.was_reset()


async def test_while_others_have_work_an_export_rests_after_each_part() -> None:
    """A task with work in each pass of the loop gets at least two passes for each part."""
    async with open_bench() as bench:
        await fill(bench, 20 * bounds.EXPORT_PART_ROWS)

        async def parts(counted: list[int]) -> int:
            stream = (await bench.pipeline.answer(Request("GET", *PARTS), "direct")).stream
            assert stream is not None
            counted.clear()
            number = 0
            while await stream.part():
                number += 1
            stream.close()
            return number

        passes: list[int] = []

        async def work() -> None:
            while True:
                time.sleep(0.001)  # noqa: ASYNC251  # the work
                passes.append(1)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            number = await parts(passes)
            nursery.cancel_scope.cancel()
        assert number == 20
        assert len(passes) >= 2 * number
