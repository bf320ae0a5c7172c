"""The network of a simulated run: it delays, loses, doubles and cuts, in both directions, each message for itself."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from server.http.messages import Request, Response
from tests.sim.books import Books
from tests.sim.process import Process
from tests.sim.profile import Profile
from tests.sim.trace import Trace

CUT_S = 2.0
"""How long a cut of the network lasts, roughly."""


DELAY_S_MAX = 5.0

T = TypeVar("T")


class NoAnswer(Exception):
    """No answer came in time, or no process listens. The sender does not know whether the request was done."""


class Network:
    """The network between the clients and the process that serves now; `process` gives that process."""

    def __init__(
        self,
        profile: Profile,
        dice: random.Random,
        tasks: trio.Nursery,
        process: Callable[[], Process | None],
        books: Books,
        trace: Trace,
    ) -> None:
        self.process = process
        self._profile = profile
        self._dice = dice
        self._tasks = tasks
        self._books = books
        self._trace = trace
        self._cut_until_s = 0.0

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong any more."""
        return trio.current_time() >= self._profile.chaos_s

    @property
    def is_cut(self) -> bool:
        """Whether nothing comes through."""
        return trio.current_time() < self._cut_until_s

    async def cut_now_and_then(self) -> None:
        """Cut the network for some time, again and again."""
        while not self.calm and self._profile.network_cut:
            await trio.sleep(self._dice.expovariate(self._profile.network_cut))
            if not self.calm:
                self._cut_until_s = trio.current_time() + self._dice.expovariate(1 / CUT_S)
                self._cut_until_s = min(self._cut_until_s, self._profile.chaos_s)
                self._trace.note("network cut", f"{self._cut_until_s:.4f}")
                self._books.counts["network cuts"] += 1

    async def delay(self) -> None:
        """Wait as long as a message takes: mostly short, sometimes very long."""
        mean = self._profile.delay_s * (20 if not self.calm and self._dice.random() < 0.02 else 1)
        await trio.sleep(min(self._dice.expovariate(1 / mean), DELAY_S_MAX))

    def loses(self) -> bool:
        """Tell whether a message is lost."""
        lost = not self.calm and (self.is_cut or self._dice.random() < self._profile.lost)
        self._books.counts["messages lost"] += lost
        return lost

    async def ask(self, request: Request, timeout_s: float) -> Response:
        """Send a request and wait for its answer, or for its first one if it was doubled. Raises `NoAnswer`."""
        return await self.have(lambda process: process.answer(request), timeout_s)

    async def have(self, act: Callable[[Process], Awaitable[T]], timeout_s: float) -> T:
        """Have the process do something, as `ask` does: over the network, perhaps twice. Raises `NoAnswer`."""
        call = _Call(act)
        times = 1
        if not self.calm and self._dice.random() < self._profile.doubled:
            times = 2
            self._books.counts["requests doubled"] += 1
        for _ in range(times):
            self._tasks.start_soon(self._carry, call)
        with trio.move_on_after(timeout_s):
            await call.over.wait()
        if call.answer is None:
            self._books.counts["requests without an answer"] += 1
            raise NoAnswer
        return call.answer

    async def _carry(self, call: _Call[T]) -> None:
        """Bring a request to the process that serves when it arrives; its sender may have given up long before."""
        await self.delay()
        if self.loses():
            return
        process = self.process()
        if process is None or not process.alive or process.tasks is None:
            call.over.set()  # a refused connection is noticed at once
        else:
            process.tasks.start_soon(self._serve, process, call)

    async def _serve(self, process: Process, call: _Call[T]) -> None:
        answer = await call.act(process)
        if process.alive and not self.loses():
            self._tasks.start_soon(self._bring_back, call, answer)

    async def _bring_back(self, call: _Call[T], answer: T) -> None:
        await self.delay()
        if call.answer is None:
            call.answer = answer
            call.over.set()


class _Call(Generic[T]):
    """What is on its way to be done, and where its answer will be."""

    def __init__(self, act: Callable[[Process], Awaitable[T]]) -> None:
        self.act = act
        self.answer: T | None = None
        self.over = trio.Event()
