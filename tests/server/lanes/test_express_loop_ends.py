"""The loop: sockets that take nothing, clients that leave, idleness, draining, cuts, its own end, and memory."""

from __future__ import annotations

import errno
import gc
import os
import socket
from types import SimpleNamespace

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.actor import Submission
from server.http.connection import HttpBounds
from server.lanes import express_loop
from server.lanes.express_loop import Parked
from tests.server.lanes.setting import Gate, Setting, get, one, open_setting, post
from tests.server.lanes.support import Client
from tests.server.lanes.test_express_loop import action, parked_clients, send_now


class Kernel(SimpleNamespace):
    """Stands in for `os` in the loop: of each answer a socket takes `takes` bytes; None: all of it."""

    def __init__(self, takes: int | None, fault: OSError | None = None) -> None:
        super().__init__(read=os.read, write=self._write)
        self.takes = takes
        self.fault = fault
        self.writes = 0

    def _write(self, file: int, data: bytes) -> int:
        self.writes += 1
        if self.fault is not None:
            raise self.fault
        return os.write(file, data[: self.takes])


async def in_flight(setting: Setting) -> tuple[Client, Gate]:
    """A client whose increment `a1` the actor has taken and not written."""
    client = await setting.parked()
    gate = Gate(setting.bench)
    await client.send(post(one("ann", "a1")))
    await gate.wait_reached()
    await trio.testing.wait_all_tasks_blocked()
    return client, gate


# ---- sockets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_bytes", [post(one("ann", "a1")), get()], ids=["increment", "top"])
@pytest.mark.parametrize("takes", [1, 100, BlockingIOError()], ids=["a byte", "a part", "nothing"])
async def test_what_a_socket_does_not_take_is_written_by_the_connections_task(
    takes: int | BlockingIOError, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets the whole answer, once; and its connection comes back after the next one."""
    async with open_setting() as setting:
        client = await setting.parked()
        kernel = Kernel(None, takes) if isinstance(takes, BlockingIOError) else Kernel(takes)
        monkeypatch.setattr(express_loop, "os", kernel)
        assert (await client.ask(request_bytes)).status == 200
        assert kernel.writes == 1
        assert (await client.ask(get())).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert setting.is_parked(client)


async def test_a_client_that_does_not_read_is_cut_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection's task gives it its time, and then it counts as stalled."""
    async with open_setting(HttpBounds(send_seconds_max=0.05)) as setting:
        client, other = await setting.parked(), await setting.parked()
        monkeypatch.setattr(express_loop, "os", Kernel(None, BlockingIOError()))
        stream = setting.connection(client).stream

        async def never(_data: bytes) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(stream, "send_all", never)
        with capture_logs() as lines:
            await client.send(get())
            assert (await other.ask(get())).status == 200
            await setting.counts.wait_failed("Stalled")
        assert [line["event"] for line in lines] == ["client_stalled"]
        assert await client.was_reset()


async def test_a_client_that_is_gone_when_its_answer_is_written_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its increment counts, its connection ends, and nothing is told of it."""
    async with open_setting() as setting:
        client = await setting.parked()
        monkeypatch.setattr(express_loop, "os", Kernel(None, OSError(errno.EPIPE, "broken pipe")))
        with capture_logs() as lines:
            await client.send(post(one("ann", "a1")))
            await client.stream.send_eof()
            await setting.counts.wait_open(0)
        assert setting.bench.logged() == [("a1", "ann", 10)]
        assert (lines, dict(setting.counts.faults)) == ([], {})


async def test_a_client_that_has_said_all_it_has_to_say_still_gets_its_answer() -> None:
    """It shuts its side after the request and gets the answer, then the end. Meanwhile no task spins."""
    async with open_setting() as setting:
        client, gate = await in_flight(setting)
        await client.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        gate.open()
        assert action(await client.answer()) == "a1"
        assert await client.ended()
        both = await setting.parked()
        send_now(both, get())
        await both.stream.send_eof()
        assert (await both.answer()).status == 200
        assert await both.ended()


async def test_a_client_that_goes_away_rudely_while_its_request_is_in_flight_is_no_fault() -> None:
    """A reset (EPOLLERR, EPOLLHUP) makes no task spin; the request is done; others are answered."""
    async with open_setting() as setting:
        other = await setting.parked()
        client, gate = await in_flight(setting)
        await client.reset()
        await trio.testing.wait_all_tasks_blocked()
        gate.open()
        assert action(await other.ask(post(one("ben", "b1")))) == "b1"
        await setting.counts.wait_open(1)
        assert setting.bench.logged() == [("a1", "ann", 10), ("b1", "ben", 10)]
        assert dict(setting.counts.faults) == {}


@pytest.mark.parametrize("rudely", [False, True])
async def test_a_parked_client_may_leave(rudely: bool) -> None:
    """Without a word, or by a reset: its connection ends and nothing is told."""
    async with open_setting() as setting:
        client = await setting.parked()
        with capture_logs() as lines:
            await (client.reset() if rudely else client.stream.aclose())
            await setting.counts.wait_open(0)
        assert (lines, dict(setting.counts.faults)) == ([], {})


# ---- idleness --------------------------------------------------------------------------------------------------------


async def test_an_idle_connection_ends_and_one_in_flight_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the actor takes; and its time begins anew with the answer."""
    monkeypatch.setattr("server.bounds.EXPRESS_SWEEP_SECONDS", 0.01)
    async with open_setting(HttpBounds(idle_seconds_max=0.5)) as setting:
        client, gate = await in_flight(setting)
        idle = await setting.parked()
        assert await idle.ended()
        assert setting.is_parked(client)
        (parked,) = setting.loop._parked.values()
        answered = trio.current_time()
        gate.open()
        assert action(await client.answer()) == "a1"
        assert parked.since >= answered
        assert (await client.ask(get())).status == 200
        assert await client.ended()


async def test_a_request_that_came_in_time_is_answered_however_late_we_look() -> None:
    """When both are due at once, the sweep finds it in the socket, and leaves the connection alone."""
    async with open_setting() as setting:
        late, silent = await setting.parked(), await setting.parked()
        send_now(late, get())
        setting.connection(late).end_idle()
        setting.connection(silent).end_idle()
        assert (await late.answer()).status == 200
        assert await silent.ended()


# ---- draining and cuts -----------------------------------------------------------------------------------------------


async def test_draining_ends_the_idle_and_answers_the_others() -> None:
    """One is idle, one in flight, one was sent and not read yet: the latter two are answered, and told that it ends."""
    async with open_setting() as setting:
        idle, unread = await setting.parked(), await setting.parked()
        client, gate = await in_flight(setting)
        send_now(unread, get())
        setting.connection(unread).close_soon()  # as `drain` does, but before the loop can run
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setting.listener.drain, 10.0)
            assert await idle.ended()
            answer = await unread.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await unread.ended()
            await unread.stream.aclose()
            gate.open()
            answer = await client.answer()
            assert (action(answer), answer.headers["connection"]) == ("a1", "close")
            assert await client.ended()
            await client.stream.aclose()
        assert setting.counts.open == 0


async def test_a_connection_that_parks_while_the_door_drains_ends() -> None:
    """Its `closing` came before it was here."""
    async with open_setting() as setting:
        client = await setting.connect()
        await trio.testing.wait_all_tasks_blocked()
        connection = setting.connection(client)
        park = setting.loop.park

        async def park_while_draining(*arguments: object) -> object:
            connection.close_soon()
            return await park(*arguments)  # type: ignore[arg-type]

        setting.loop.park = park_while_draining  # type: ignore[method-assign, assignment]
        answer = await client.ask(get())
        assert "connection" not in answer.headers
        assert await client.ended()


@pytest.mark.parametrize("busy", [False, True])
async def test_a_cut_wakes_whoever_waits_here(busy: bool) -> None:
    """At once when it is idle; otherwise with the answer, which is lost. Its file number is free before that."""
    async with open_setting() as setting:
        if busy:
            client, gate = await in_flight(setting)
        else:
            client, gate = await setting.parked(), Gate(setting.bench)
        setting.connection(client).cut()
        assert await client.was_reset()
        gate.open()
        await setting.counts.wait_open(0)
        assert setting.loop._parked == {}
        assert dict(setting.counts.faults) == {}


@pytest.mark.parametrize("cut", [False, True])
async def test_an_answer_never_goes_to_the_next_connection_of_the_same_number(cut: bool) -> None:
    """The one that asked is gone, by a cut or with its task; the next one, in its place, gets its own answers only."""
    async with open_setting() as setting:
        client, gate = await in_flight(setting)
        connection = setting.connection(client)
        file = connection.stream.socket.fileno()
        next_socket = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if cut:
            connection.cut()
        else:
            parked = setting.loop._parked[file]
            parked.scope.cancel()
            await setting.counts.wait_open(0)
        await next_socket.connect(("127.0.0.1", setting.port))
        second = Client(trio.SocketStream(next_socket))
        assert (await second.ask(get())).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert setting.connection(second).stream.socket.fileno() == file, "the number was given out again"
        assert setting.is_parked(second)
        gate.open()
        assert action(await second.ask(post(one("ben", "b1")))) == "b1"
        assert setting.bench.logged() == [("a1", "ann", 10), ("b1", "ben", 10)]
        await setting.counts.wait_open(1)


async def test_a_connection_that_epoll_does_not_take_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with that fault; the loop and all other connections go on."""
    async with open_setting() as setting:
        other = await setting.parked()

        def full(_file: int, _events: int) -> None:
            raise OSError(errno.ENOSPC, "no more watches")

        epoll = setting.loop._epoll
        assert epoll is not None
        poll = SimpleNamespace(register=full, poll=epoll.poll, unregister=epoll.unregister, fileno=epoll.fileno)
        monkeypatch.setattr(setting.loop, "_epoll", poll)
        client = await setting.connect()
        assert (await client.ask(get())).status == 200
        assert await client.ended()
        assert dict(setting.counts.faults) == {"OSError": 1}
        assert len(setting.loop._parked) == 1
        assert (await other.ask(get())).status == 200


# ---- its own end -----------------------------------------------------------------------------------------------------


async def test_when_the_reactor_ends_connections_go_on_by_themselves() -> None:
    """But for one in flight: it is reset, or the answer to its next request would be taken for the missing one."""
    async with open_setting() as setting:
        idle, unread = await setting.parked(), await setting.parked()
        client, gate = await in_flight(setting)
        send_now(unread, get())
        setting.looping.cancel()
        assert await client.was_reset()
        gate.open()
        assert (await unread.answer()).status == 200
        for one_of_them in (idle, unread):
            for n in range(2):
                assert action(await one_of_them.ask(post(one("ben", f"b{n}")))) == f"b{n}"
        assert setting.loop._parked == {}
        assert setting.bench.logged()[0] == ("a1", "ann", 10), "what was asked is done all the same"


# ---- memory ----------------------------------------------------------------------------------------------------------


def alive(*kinds: type, besides: list[object] | None = None) -> list[object]:
    """All objects of some kinds, but for what was there before."""
    gc.collect()
    known = {id(each) for each in besides or []}
    return [each for each in gc.get_objects() if isinstance(each, kinds) and id(each) not in known]


async def test_nothing_of_a_request_outlives_its_answer() -> None:
    """Neither while its connection waits for the next one, nor of a connection that has gone."""
    before = alive(Submission, Parked)  # of other tests
    async with open_setting() as setting:
        clients = await parked_clients(setting, 3)
        for n, client in enumerate(clients):
            send_now(client, post(one("ann", f"a{n}")))
        assert [action(await client.answer()) for client in clients] == ["a0", "a1", "a2"]
        await trio.testing.wait_all_tasks_blocked()
        assert alive(Submission, besides=before) == []
        assert len(alive(Parked, besides=before)) == 3
        for client in clients:
            await client.stream.aclose()
        await setting.counts.wait_open(0)
        await trio.testing.wait_all_tasks_blocked()
        assert setting.loop._parked == {}
        # The loop of the loop may still name the one that it looked at last.
        assert len(alive(Parked, besides=before)) <= 1


async def test_without_run_connections_wait_for_themselves() -> None:
    """A loop that does not run takes no connection."""
    async with open_setting(looping=False) as setting:
        client = await setting.connect()
        for n in range(3):
            assert action(await client.ask(post(one("ann", f"a{n}")))) == f"a{n}"
        assert setting.loop._parked == {}
