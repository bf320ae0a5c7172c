"""A load: requests over keep-alive connections, from a process of its own on a processor of its own.

    load = run_load(Workload(port=port, connections=256, seconds=1.5, token=token), processor=1)
    load.per_second, load.ms_p50

This module makes one request, and notes where in it the digits of users and actions stand. A generator sends that
request again and again with new digits, and reads only the status and the length of an answer. So it costs little,
knows nothing of JSON or msgpack, and drives every system alike. It tells how busy its processor was (`cpu_share`): near
1 the generator itself would be the bottleneck.

The generator is `generator.c`, compiled when it is first needed, or `generator.py` where there is no C compiler; a
`Load` says which. Each run uses action ids that were never used before, as long as a UUID; with a `prefix` it repeats
those of `bench.past`.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("generator.c")
COMPILED = Path(__file__).with_name("work") / "generator"
WARM_SECONDS = 0.5
USER_DIGITS = 7
ACTION_DIGITS = 9
PREFIX_CHARACTERS = 26
USER_STEP = 7_919
"""Action number n is one of the user with the number n · USER_STEP modulo the number of users."""

JSON = "application/json"
MSGPACK = "application/msgpack"


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and how long. `batch` 0 is a single increment. Each connection sends `first` once, at its start.

    The actions have the numbers `step`, 2 · `step` … modulo `numbers`. Without a `prefix` their ids are new ones.
    """

    port: int
    connections: int
    seconds: float
    token: str = ""
    method: str = "POST"
    path: str = "/scores/increment"
    batch: int = 0
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    users: int = 10_000
    first: str = ""
    warm_seconds: float = WARM_SECONDS
    prefix: str = ""
    numbers: int = 10**ACTION_DIGITS
    step: int = 1


class Load(msgspec.Struct, frozen=True):
    """The result of a load. `answers` had status 200 or 304 and came after the warm-up, within `seconds`.

    `answers_all` counts the answers of the whole run, `errors` those with another status. Latencies are in ms.
    `server_us` is the processor time that all processes of the server took for an answer, over the whole run.
    """

    generator: str
    answers: int
    answers_all: int
    errors: int
    seconds: float
    ms_p50: float
    ms_p99: float
    cpu_share: float
    server_us: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers in a second."""
        return self.answers / self.seconds


class Prepared(msgspec.Struct, frozen=True):
    """A request, and the places of its items' digits."""

    data: bytes
    items: int
    user_at: int
    action_at: int
    stride: int


class LoadFailed(Exception):
    """The load gives no figure. The text says why; if the generator did not finish, it is the generator's message."""


def run_load(
    workload: Workload, processor: int, generator: list[str] | None = None, server_pids: tuple[int, ...] = ()
) -> Load:
    """Run a load on the given processor, and measure what it costs the server's processes. Raises `LoadFailed`."""
    request = prepare(workload)
    first = workload.first.encode()
    places = (workload.users, request.items, request.user_at, request.action_at, request.stride, len(first))
    numbers = (*places, workload.numbers, workload.step)
    command = ["taskset", "-c", str(processor), *(generator or default_generator()), "load", str(workload.port)]
    command += [str(workload.connections), str(workload.warm_seconds), str(workload.seconds), *map(str, numbers)]
    before = processor_seconds(server_pids)
    done = subprocess.run(command, input=first + request.data, capture_output=True, check=False, cwd=ROOT)
    if done.returncode:
        raise LoadFailed(done.stderr.decode().strip())
    load = msgspec.json.decode(done.stdout, type=Load)
    if not load.answers and not load.errors:
        raise LoadFailed(f"no answer came within {workload.seconds} s: measure longer")
    server_us = (processor_seconds(server_pids) - before) * 1e6 / load.answers_all
    return msgspec.structs.replace(load, server_us=server_us)


def processor_seconds(pids: tuple[int, ...]) -> float:
    """The processor time of these processes so far, in user and system mode, in steps of 10 ms."""
    ticks = 0
    for pid in pids:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def prepare(workload: Workload) -> Prepared:
    """Make the request of a workload."""
    lines = [f"{workload.method} {workload.path} HTTP/1.1", "Host: bench"]
    lines += [f"{name}: {value}" for name, value in workload.headers]
    if workload.method == "GET":
        return Prepared("\r\n".join([*lines, "", ""]).encode(), 0, 0, 0, 0)
    count = workload.batch or 1
    prefix = workload.prefix or secrets.token_hex(PREFIX_CHARACTERS // 2)
    items = [item_of(prefix, number) for number in range(count)]
    encode = msgspec.msgpack.encode if workload.content_type == MSGPACK else msgspec.json.encode
    body = encode(items if workload.batch else items[0])
    lines += [f"Authorization: Bearer {workload.token}", f"Content-Type: {workload.content_type}"]
    lines += [f"Content-Length: {len(body)}", "", ""]
    data = "\r\n".join(lines).encode() + body
    at = [data.index(b"user-%07d" % number) + len("user-") for number in range(min(count, 2))]
    action_at = data.index(f"{prefix}-{0:0{ACTION_DIGITS}}".encode()) + len(prefix) + 1
    return Prepared(data, count, at[0], action_at, at[-1] - at[0])


def item_of(prefix: str, number: int) -> dict[str, str]:
    """An increment as it is sent: every item has the same length."""
    return {"userId": f"user-{number:0{USER_DIGITS}}", "actionId": f"{prefix}-{number:0{ACTION_DIGITS}}"}


@functools.cache
def default_generator() -> list[str]:
    """The command of the generator in C, or of the one in Python where there is no `cc`."""
    return c_generator() or python_generator()


def python_generator() -> list[str]:
    """The command of the generator in Python."""
    return [sys.executable, "-m", "bench.generator"]


def c_generator() -> list[str] | None:
    """The command of the generator in C, compiled if its source is newer; None where it can't be compiled."""
    if not COMPILED.exists() or COMPILED.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        COMPILED.parent.mkdir(exist_ok=True)
        fresh = COMPILED.with_name(f"generator-{os.getpid()}")  # two benches may compile at once
        done = subprocess.run([compiler, "-O2", "-o", str(fresh), str(SOURCE)], capture_output=True, check=False)
        if done.returncode:
            return None
        fresh.rename(COMPILED)
    return [str(COMPILED)]
