"""Many clients: from one address, and all at once.

The limit of open files bounds how many connections this process may have. If it is too low, fewer clients come,
and the printed line says so.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import Counter

import pytest

from server.bounds import CONNECTIONS_PER_ADDRESS_MAX, LISTENER_RESERVED_FILES, TURNED_AWAY_MAX
from tests.e2e.leader import ALARM_SECONDS
from tests.hostile.attack import Attack, head
from tests.hostile.target import ATTACKER, Target, read_to_end, replies_in, wait_until
from tests.measuring import raise_file_limit

ONE_ADDRESS = 10_000
BURST = 5_000
BURST_ADDRESSES = [f"127.0.1.{number}" for number in range(1, 11)]
OWN_FILES = 200
"""Files that this process needs for itself beside the connections."""


def ten_thousand_from_one_address(target: Target) -> None:
    """10,000 kept connections from one address: the bound's number is served, the others are refused or closed."""
    wanted = _as_many_as_may_be(ONE_ADDRESS, CONNECTIONS_PER_ADDRESS_MAX + 100)
    before = target.open_files()
    connections: list[socket.socket] = []
    try:
        connections += [target.connect() for _ in range(wanted)]
        target.wait_accepted()
        # Accepted connections hear nothing; all others get an answer, or the end of the connection.
        wait_until(
            lambda: target.open_files() <= before + CONNECTIONS_PER_ADDRESS_MAX,
            "the server holds no more connections of one address than it may",
        )
        held = target.open_files() - before
        turned_away = [connection for connection in connections if _has_ended(connection)]
        statuses = Counter(reply.status for connection in turned_away for reply in replies_in(read_to_end(connection)))
        assert set(statuses) == {503}, statuses
        assert len(turned_away) >= wanted - CONNECTIONS_PER_ADDRESS_MAX, (len(turned_away), held)
    finally:
        for connection in connections:
            connection.close()


def _has_ended(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def burst_of_five_thousand(target: Target) -> None:
    """5,000 connects in the same moment, from ten addresses, each with a request: every one is answered."""
    spare = LISTENER_RESERVED_FILES + TURNED_AWAY_MAX + OWN_FILES
    burst = _as_many_as_may_be(BURST, 500, spare)
    request = head("GET /scoreboard/top HTTP/1.1", "Connection: close")
    poll = select.epoll()
    waiting: dict[int, socket.socket] = {}
    statuses: Counter[int | str] = Counter()
    try:
        for number in range(burst):
            connection = _begin_to_connect(target, BURST_ADDRESSES[number % len(BURST_ADDRESSES)])
            waiting[connection.fileno()] = connection
            poll.register(connection.fileno(), select.EPOLLOUT)
        deadline = time.monotonic() + ALARM_SECONDS
        while waiting and time.monotonic() < deadline:
            for number, event in poll.poll(1.0):
                connection = waiting[number]
                if event & select.EPOLLOUT and not event & (select.EPOLLERR | select.EPOLLHUP):
                    connection.send(request)
                    poll.modify(number, select.EPOLLIN)
                    continue
                connection.settimeout(ALARM_SECONDS)
                statuses.update(reply.status for reply in replies_in(read_to_end(connection)))
                poll.unregister(number)
                waiting.pop(number).close()
        assert statuses == {200: burst}, (statuses, len(waiting))
    finally:
        poll.close()
        for connection in waiting.values():
            connection.close()


def _begin_to_connect(target: Target, source: str) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.bind((source, 0))
    fault = connection.connect_ex(("127.0.0.1", target.port))
    assert fault in (0, errno.EINPROGRESS), errno.errorcode[fault]
    return connection


def comes_and_goes(target: Target) -> None:
    """3,000 connections in turn that are closed without a byte, as in a port scan."""
    for _ in range(3_000):
        target.connect(ATTACKER).close()


def _as_many_as_may_be(wanted: int, least: int, spare: int = OWN_FILES) -> int:
    """`wanted` connections, or what the limit of open files leaves; skips the test where that would show nothing."""
    may = raise_file_limit() - spare
    if may < least:
        pytest.skip(f"the hard limit of open files leaves {may} connections, and this shows nothing below {least}")
    if may < wanted:
        print(f"{may} connections instead of {wanted}: the hard limit of open files allows no more")  # noqa: T201
    return min(wanted, may)


CROWDS = (
    Attack("10,000 from one address", ten_thousand_from_one_address.__doc__ or "", ten_thousand_from_one_address),
    Attack("a burst of 5,000", burst_of_five_thousand.__doc__ or "", burst_of_five_thousand),
    Attack("comes and goes", comes_and_goes.__doc__ or "", comes_and_goes),
)
