"""The steps of an increment without network and disk: the one place where the benches use the inside of the engine.

The API, the actor and the log take these steps in the same order and by the same calls. Each step is timed by itself:
decode (the API), decide (the actor), pack (the log), settle (the actor), encode (the API). Left out are the token, the
rates, the metrics, the queue between tasks, the write and the fdatasync. If the product changes these steps, this file
must change too.

Times are the thread's processor time: no step waits, and the work of other processes does not count.
Reading that clock takes a system call. `clock_cost_ns` measures what it costs, and `StepTimes` subtracts it.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from engine.batch import Batch
from engine.board_rules import rules_of_points
from engine.commands import Command, Increment, Outcome, Receipt
from engine.events import Incremented
from engine.limits import BATCH_COMMANDS_MAX
from engine.record import chain_start, pack_frame
from engine.scoreboard import Scoreboard
from server.api.decoding import IncrementBody, decode_batch
from server.api.increments import batch_item_answer, increment_answer
from server.bounds import YOUNG_OBJECTS_MAX
from server.live.encoding import Moment, about, entries_of, top_body

BOARD = "main"
RULES = rules_of_points({BOARD: {"ACTION_COMPLETED": 10}})
NOW_MS = 1_765_000_000_000
SCORE_STEPS = 10_000
"""Users begin with 10 to 100,000 points at random, so an increment may move a user anywhere on the board."""

STEPS = ("decode", "decide", "pack", "settle", "encode")

clock_ns = time.thread_time_ns

_encode = msgspec.json.Encoder().encode


def clock_cost_ns() -> int:
    """What one reading of the clock costs: the median of a thousand."""
    readings = [clock_ns() for _ in range(1_001)]
    return int(statistics.median(after - before for before, after in pairwise(readings)))


CLOCK_COST_NS = clock_cost_ns()


class StepTimes:
    """The sum of the nanoseconds that each step took."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys(STEPS, 0)

    def add(self, step: str, start: int, end: int) -> None:
        """Add a time between two readings of the clock."""
        self.sums[step] += end - start - CLOCK_COST_NS

    def us(self, operations: int) -> dict[str, float]:
        """Microseconds for one of `operations`, by step."""
        return {step: value / operations / 1_000 for step, value in self.sums.items()}


def user_id(number: int) -> str:
    """The user of that number."""
    return f"user-{number:07d}"


class Core:
    """A scoreboard with one board of `users` users; each has had one action."""

    def __init__(self, users: int, seed: int) -> None:
        self.users = users
        self.chance = random.Random(seed)
        self.scoreboard = Scoreboard(RULES)
        self._actions = 0
        self._checksum = chain_start(bytes(16))
        self.scoreboard.begin_replay()
        for number in range(users):
            points = 10 * self.chance.randrange(1, SCORE_STEPS)
            self.scoreboard.apply(
                Incremented(
                    seq=number + 1,
                    time_ms=NOW_MS,
                    board_id=BOARD,
                    user_id=user_id(number),
                    action_id=self.next_action(),
                    delta=points,
                    reason="ACTION_COMPLETED",
                    caller="bench",
                    new_score=points,
                ),
                self.scoreboard.epoch,
            )
        self.scoreboard.end_replay()
        self.board = self.scoreboard.boards[BOARD]
        # As the server does after its start: these objects stay, so the collector need not walk over them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS_MAX)

    # What comes in

    def next_action(self) -> str:
        """A new action, as long as a UUID."""
        self._actions += 1
        return f"00000000-0000-4000-8000-{self._actions:012d}"

    def random_user(self) -> str:
        """Any user."""
        return user_id(self.chance.randrange(self.users))

    def commands(self, count: int) -> list[Command]:
        """Increments of users at random."""
        return [
            Increment(self.random_user(), self.next_action(), "ACTION_COMPLETED", BOARD, "bench") for _ in range(count)
        ]

    def body(self, count: int) -> bytes:
        """The body of a batch of increments of users at random."""
        return _encode([{"userId": self.random_user(), "actionId": self.next_action()} for _ in range(count)])

    # The steps

    def decode(self, body: bytes, times: StepTimes) -> list[Command]:
        """From the body of a batch to commands."""
        start = clock_ns()
        commands: list[Command] = []
        for item in decode_batch(body, BATCH_COMMANDS_MAX):
            assert isinstance(item, IncrementBody)
            commands.append(Increment(item.user_id, item.action_id, item.reason, item.board_id, "bench"))
        times.add("decode", start, clock_ns())
        return commands

    def write(self, commands: Sequence[Command], times: StepTimes) -> list[Outcome]:
        """From commands to outcomes: one frame."""
        start = clock_ns()
        batch = Batch(self.scoreboard, NOW_MS)
        batch.decide(commands)
        decided = clock_ns()
        frame = pack_frame(batch.events, epoch=self.scoreboard.epoch, previous=self._checksum)
        self._checksum = int.from_bytes(frame[4:8], "little")
        packed = clock_ns()
        outcomes = batch.settle()
        settled = clock_ns()
        times.add("decide", start, decided)
        times.add("pack", decided, packed)
        times.add("settle", packed, settled)
        return outcomes

    def encode(self, outcomes: Sequence[Outcome], times: StepTimes) -> list[bytes]:
        """From outcomes to bodies: a single answer, or the answer of a batch if there is more than one."""
        start = clock_ns()
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        assert len(receipts) == len(outcomes)
        if len(receipts) == 1:
            bodies = [_encode(increment_answer(receipts[0]))]
        else:
            bodies = [_encode([batch_item_answer(receipt) for receipt in receipts])]
        times.add("encode", start, clock_ns())
        return bodies

    # Reading

    def top(self, count: int) -> bytes:
        """The encoded first rows."""
        scoreboard = self.scoreboard
        moment = Moment(BOARD, scoreboard.epoch, self.board.seq, NOW_MS, about(self.board.definition))
        return top_body(entries_of(self.board.top(count), scoreboard.users), moment)
