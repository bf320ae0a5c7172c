"""What do reads of the past and exports cost those who increment? `python -m bench.aside`.

Increments on one server, in turns: with nothing beside, and beside each of these.

    busy        another process of the same low priority on the server's processor, that only counts
    as of       reads of the past, one after the other, each of another seq: their process is on that processor too
    export      exports of the whole board over HTTP, one after the other

The past must cost no more than any other busy process: it is read in no thread of the server. An export runs in the
server's own loop, so it takes its share of the processor; what counts is that no increment waits long for it.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count

import msgspec

from bench import tables
from bench.filling import fill_ours
from bench.history import record
from bench.load import Load, Workload, run_load
from bench.servers import Server, leader, running, token
from bench.turns import median, ms_p50, ms_p99, per_second, ratio, take_turns
from bench.wanted import Wanted, show_wanted

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
CONNECTIONS = 8
ALONE, BUSY, AS_OF, EXPORT = "nothing", "busy", "as of", "export"
SPIN = [sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"]


class Row(msgspec.Struct, frozen=True):
    """Increments beside something. `done` counts what was done beside; ratios are to the increments alone."""

    beside: str
    per_second: float
    ms_p50: float
    ms_p99: float
    p99_ratio: float
    done: int


@contextmanager
def asking(server: Server, targets: Iterator[str], done: list[int]) -> Iterator[None]:
    """Ask for one target after the other, from a thread; `done` gets the bytes of each answer."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        headers = {"Authorization": f"Bearer {token(server.secret, 'scores:read')}"}
        try:
            while not stop.is_set():
                connection.request("GET", next(targets), headers=headers)
                answer = connection.getresponse()
                size = 0
                while part := answer.read(2**16):
                    size += len(part)
                assert answer.status == 200, answer.status
                done.append(size)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def increments(server: Server, seconds: float, beside: Callable[[], AbstractContextManager[object]]) -> Load:
    """Run one load of increments beside something."""
    workload = Workload(port=server.port, connections=CONNECTIONS, seconds=seconds, token=server.token)
    with beside():
        load = run_load(workload, LOAD_PROCESSOR, server_pids=server.pids)
    assert load.errors == 0, f"{load.errors} answers were errors"
    return load


def measure(server: Server, users: int, seconds: float, rounds: int) -> list[Row]:
    """Let them take turns."""
    read: list[int] = []
    sent: list[int] = []
    past = (f"/scoreboard/top?asOfSeq={users - number % (users // 2)}" for number in count())
    whole = (f"/boards/main/export?format=csv&{'_=' + str(number)}" for number in count())
    beside: dict[str, Callable[[], AbstractContextManager[object]]] = {
        ALONE: nullcontext,
        BUSY: partial(running, SPIN, SERVER_PROCESSOR),
        AS_OF: partial(asking, server, past, read),
        EXPORT: partial(asking, server, whole, sent),
    }
    runs = {name: partial(increments, server, seconds, each) for name, each in beside.items()}
    measured = take_turns(runs, rounds)
    done = {AS_OF: len(read), EXPORT: len(sent)}
    return [
        Row(
            name, median(per_second, loads), median(ms_p50, loads), median(ms_p99, loads),
            ratio(ms_p99, loads, measured[ALONE]), done.get(name, 0),
        )
        for name, loads in measured.items()
    ]  # fmt: skip


def show(rows: list[Row], users: int) -> None:
    """Print the table."""
    columns = ("increments/s", "p50 ms", "p99 ms", "p99 × alone", "done")
    table = tables.table(f"increments, {CONNECTIONS} connections, {users:,} users", ("beside",), columns)
    for row in rows:
        figures = (f"{row.per_second:,.0f}", f"{row.ms_p50:.2f}", f"{row.ms_p99:.2f}", f"{row.p99_ratio:.2f}")
        table.add_row(row.beside, *figures, str(row.done))
    tables.show(table)


def main() -> None:
    """Fill, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load, after its warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=100_000)
    options = parser.parse_args()
    with leader(SERVER_PROCESSOR) as server:
        fill_ours(server, options.users)
        rows = measure(server, options.users, options.seconds, options.rounds)
    show(rows, options.users)
    by_name = {row.beside: row for row in rows}
    name = "p99 of an increment beside reads of the past, against another busy process"
    figures = [Wanted(name, by_name[AS_OF].ms_p99 / by_name[BUSY].ms_p99, 1.25, at_least=False, unit="×")]
    show_wanted(figures)
    builtins = msgspec.to_builtins
    record("aside", {"users": options.users, "rows": builtins(rows), "wanted": builtins(figures)})


if __name__ == "__main__":
    main()
