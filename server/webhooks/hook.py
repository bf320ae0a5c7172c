"""One webhook: a task that delivers what is due, one delivery after the other.

    hook = Hook(config, world, rare)
    await hook.run()                        until cancelled, on a leader
    hook.applied(["main"])                  after each frame; await hook.enable(); hook.status()

    ┌─► pending ──► held back by a freeze that ended ──► the log up to now ──► first rows that changed ──► wait for news
    └──────────────────────────────────────────────────────────────────────────────────────────────────────┘
    a delivery:  body of now ──► attempt ──► acknowledged: cursor moves, is saved ──► the next one
                     └── wait ◄── failed ──► disabled: nothing until it is enabled

Invariants:
- One delivery is on its way at a time, and the next one begins when the cursor behind it is on disk. So order holds.
- Rows are told after each event of the log up to then. So a top that failed gives way to events that came since.
- Nothing is queued. What is due is found again from the cursor: in the log, in the reviews, in the boards.
- A hook waits only for its receiver and for the disk. Nobody waits for a hook.

Rules:
- The body is made anew for each attempt. So an erased user is in none that is made after the erasure.
- What was flagged or ended while the public sees a frozen board is held back until the freeze ends.
- The cursor is saved after each delivery, and now and then if events passed by that call for none.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
import trio

from engine.errors import LogDamaged
from engine.scoreboard import Scoreboard
from server.api.webhook_forms import WebhookCursor, WebhookObject
from server.live.encoding import iso_or_none
from server.live.names import NameForm
from server.settings.webhooks import REVIEW_FLAGGED, WebhookConfig
from server.webhooks.connecting import Resolve
from server.webhooks.cursor import KEY_BYTES, PLACE_AFTER_ALL, Cursor, CursorDamaged, Due, OvertakenPending, settled
from server.webhooks.cursor_store import CursorStore
from server.webhooks.due import Made, Telling, is_hidden
from server.webhooks.first_rows import FirstRows
from server.webhooks.limits import HELD_BACK_MAX, OVERTAKEN_LOOK, SAVE_SECONDS
from server.webhooks.rare_events import Found, RareEvents, ReadableLog, Scan
from server.webhooks.retries import Attempt, after
from server.webhooks.sender import Sender

log = structlog.get_logger()


class HookMetrics(Protocol):
    """What a hook counts (`server.metrics`)."""

    def webhook_delivered(self, name: str) -> None: ...
    def webhook_failed(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HookWorld:
    """What hooks need of their node. `form` is that of the names which the public sees.

    `write_with_room` does a write, as soon as there is room on the disk. `interval_s` is that of the live channel.
    """

    scoreboard: Scoreboard
    log: ReadableLog
    log_id: str
    telling: Telling
    store: CursorStore
    form: NameForm
    interval_s: float
    clock_ms: Callable[[], int]
    uniform: Callable[[float, float], float]
    random_bytes: Callable[[int], bytes]
    resolve: Resolve
    write_with_room: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    metrics: HookMetrics


class _Disabled(Exception):
    """The hook was disabled in the middle of a delivery."""


class Hook:
    """See above."""

    def __init__(self, config: WebhookConfig, world: HookWorld, rare: RareEvents) -> None:
        self.config = config
        self._world = world
        self._rare = rare
        self._interval_s = world.interval_s if config.interval_ms is None else config.interval_ms / 1000
        self._tick_s = min(self._interval_s, world.interval_s)
        self._cursor: Cursor | None = None
        self._fresh: Cursor | None = None
        self._rows = FirstRows(world.scoreboard, config, world.form, self._interval_s)
        self._saving = trio.Lock()
        self._saved = (0, 0)
        self._saved_s = -math.inf
        self._looked_s = -math.inf
        self._news = trio.Event()
        self._again = trio.Event()
        self._failures = 0
        self._last_error = ""
        self._last_error_ms: int | None = None

    # From the node

    def applied(self, board_ids: set[str]) -> None:
        """Note that events were applied, which touched these boards."""
        self._rows.changed(board_ids)
        self._news.set()

    def lead(self) -> None:
        """Note that the node leads from this moment on. A hook without a cursor begins here."""
        world, scoreboard = self._world, self._world.scoreboard
        key = world.random_bytes(KEY_BYTES).hex()
        self._fresh = Cursor(version=1, log_id=world.log_id, key=key, epoch=scoreboard.epoch, seq=scoreboard.seq)
        self._rows.begin(self._fresh)

    def forget(self, user_id: str) -> None:
        """Forget a user who was erased."""
        self._rows.forget(user_id)

    async def enable(self) -> None:
        """Deliver again, and at once."""
        cursor = self._cursor
        if cursor is not None and cursor.disabled:
            cursor.disabled, cursor.failing_ms, self._failures = "", 0, 0
            await self._save(cursor)
        self._again.set()

    @property
    def disabled(self) -> str:
        """Why the hook is disabled, empty if it is not."""
        return "" if self._cursor is None else self._cursor.disabled

    def status(self) -> WebhookObject:
        """Say how far the hook is."""
        config, cursor = self.config, self._cursor
        seq = self._world.scoreboard.seq if cursor is None else cursor.first_seq - 1
        error = self.disabled or self._last_error
        return WebhookObject(
            name=config.name,
            url=config.url,
            events=config.events,  # type: ignore[arg-type]  # the configuration has checked them
            boards=config.boards,
            cursor=None if cursor is None else WebhookCursor(cursor.epoch, max(0, seq)),
            lag=max(0, self._world.scoreboard.seq - seq),
            failures=self._failures,
            last_error=error or None,
            last_error_at=iso_or_none(self._last_error_ms) if error else None,
            disabled=bool(self.disabled),
        )

    # The task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver until cancelled. It has started once it has its cursor. Raises `DiskFault`."""
        sender = Sender(self.config, resolve=self._world.resolve, clock_ms=self._world.clock_ms)
        try:
            cursor = self._cursor = await self._begin()
            task_status.started()
            while True:
                await self._until_enabled(cursor)
                self._news, self._looked_s = trio.Event(), trio.current_time()
                try:
                    await self._round(cursor, sender)
                except _Disabled:
                    continue
                await self._wait()
        finally:
            self._cursor = None
            with trio.CancelScope(shield=True):
                await sender.close()

    async def _begin(self) -> Cursor:
        """Give the cursor to go on from, or the new one."""
        world, name = self._world, self.config.name
        scoreboard, why, disabled = world.scoreboard, "there is no cursor", ""
        kept: Cursor | None = None
        try:
            kept = await world.store.load(name)
        except CursorDamaged as damaged:
            why = f"the cursor can't be read: {damaged}"
        epochs = [(mark.first_seq, mark.epoch) for mark in scoreboard.marks()]
        if kept is not None:
            disabled = kept.disabled if kept.log_id == world.log_id else ""
            kept, why = settled(kept, world.log_id, epochs, scoreboard.seq), "the cursor is of another time as a leader"
        if kept is None:
            kept = self._fresh
            assert kept is not None, "the node has begun to lead"
            kept.disabled = disabled  # only an operator enables a hook
            log.info("webhook_begins", name=name, reason=why, epoch=kept.epoch, seq=kept.seq)
        self._fresh = None
        await self._save(kept)
        return kept

    async def _until_enabled(self, cursor: Cursor) -> None:
        while cursor.disabled:
            self._again = trio.Event()
            await self._again.wait()

    async def _round(self, cursor: Cursor, sender: Sender) -> None:
        """Deliver what is due by now."""
        await self._deliver_pending(cursor, sender)
        await self._deliver_held(cursor, sender)
        await self._deliver_log(cursor, sender, self._world.scoreboard.seq)
        for board_id, past in self._rows.ended(cursor):
            rows = await self._world.telling.final_rows(board_id, past, OVERTAKEN_LOOK)
            self._rows.close(cursor, board_id, past, rows)
        if not self._owes(cursor):  # else the next round looks, which comes at once
            self._rows.look(cursor, trio.current_time())
        if cursor.pending:
            await self._save(cursor)
            await self._deliver_pending(cursor, sender)
        elif self._saved != (cursor.seq, cursor.place) and trio.current_time() - self._saved_s >= SAVE_SECONDS:
            await self._save(cursor)

    async def _wait(self) -> None:
        """Wait for news, or until a board may be looked at. A busy board costs one round in an interval."""
        with trio.move_on_after(min(SAVE_SECONDS, self._rows.wait_s(trio.current_time()))):
            await self._news.wait()
        await trio.sleep_until(self._looked_s + self._tick_s)

    async def _deliver_pending(self, cursor: Cursor, sender: Sender) -> None:
        while cursor.pending:
            await self._deliver(cursor, sender, partial(self._make_pending, cursor))
            del cursor.pending[0]
            await self._save(cursor)

    async def _make_pending(self, cursor: Cursor) -> Made | None:
        pending = cursor.pending[0]
        if isinstance(pending, OvertakenPending):
            past = self._rows.lacks(cursor, pending)
            if past is not None:
                rows = await self._world.telling.final_rows(pending.board_id, past, OVERTAKEN_LOOK)
                self._rows.learn(cursor, pending.board_id, rows)
            return self._rows.of_overtaken(cursor, pending)
        newest = self._rows.of_top(cursor, pending)
        if newest is None:
            return None
        if newest[0] != pending:
            if self._owes(cursor):
                self._rows.withdraw(cursor, pending)
                return None
            cursor.pending[0] = newest[0]
            await self._save(cursor)  # before it is sent: a repeat after a crash has this id
        return newest[1], newest[2]

    async def _deliver_held(self, cursor: Cursor, sender: Sender) -> None:
        for due in list(cursor.held):
            if not is_hidden(self._world.scoreboard, due):
                await self._deliver(cursor, sender, partial(self._world.telling.of, due))
                cursor.held.remove(due)
                await self._save(cursor)

    async def _deliver_log(self, cursor: Cursor, sender: Sender, until_seq: int) -> None:
        """Deliver what the log calls for up to an event."""
        known = self._rare.after(cursor.seq) if cursor.seq < until_seq else []
        scan = None if known is not None else Scan(self._world.log, cursor.seq + 1, until_seq)
        while cursor.seq < until_seq or cursor.place < PLACE_AFTER_ALL:
            last, dues = until_seq, known or []
            if scan is not None:
                found = await self._scanned(scan, until_seq)
                last, dues = found.until_seq, found.dues
                if found.lost:
                    remedy = "what these events called for can't be delivered; a longer [log] keep has them longer"
                    log.error("webhook_events_lost", name=self.config.name, before_seq=found.lost, remedy=remedy)
            for due in self._wanted(cursor, dues, last):
                await self._pass(cursor, sender, due)
            cursor.reached(last)

    def _wanted(self, cursor: Cursor, dues: list[Due], last_seq: int) -> list[Due]:
        """Give those of the log's deliveries that the hook is told, and the reviews, up to an event."""
        dues = [due for due in dues if due.seq <= last_seq and due.kind in self.config.events]
        dues += self._reviews(cursor, last_seq)
        concerned = (due for due in dues if not due.board_id or self.config.concerns(due.board_id))
        return sorted(due for due in concerned if cursor.takes(due))

    def _owes(self, cursor: Cursor) -> bool:
        """Whether something waits, or may wait, that comes before the rows of now."""
        scoreboard = self._world.scoreboard
        if any(not is_hidden(scoreboard, due) for due in cursor.held):
            return True
        known = self._rare.after(cursor.seq)
        if known is None:
            return cursor.seq < scoreboard.seq
        return bool(self._wanted(cursor, known, scoreboard.seq))

    async def _scanned(self, scan: Scan, until_seq: int) -> Found:
        try:
            return await scan.next()
        except LogDamaged as damaged:
            log.error("webhook_log_unreadable", name=self.config.name, path=damaged.path, reason=damaged.what)
            return Found([], until_seq, lost=until_seq + 1)

    def _reviews(self, cursor: Cursor, last_seq: int) -> list[Due]:
        found: list[Due] = []
        if REVIEW_FLAGGED in self.config.events:
            for review in reversed(list(self._world.scoreboard.reviews.all())):  # the newest first: most are older
                if review.seq < cursor.seq:
                    break
                if review.seq <= last_seq:
                    found.append(Due(review.seq, review.place, REVIEW_FLAGGED, review.board_id))
        return found

    async def _pass(self, cursor: Cursor, sender: Sender, due: Due) -> None:
        """Deliver what is due, or hold it back."""
        if is_hidden(self._world.scoreboard, due):
            if len(cursor.held) >= HELD_BACK_MAX:
                log.error(
                    "webhook_events_lost", name=self.config.name, seq=due.seq, reason="too many wait for a freeze"
                )
            else:
                cursor.held.append(due)
        else:
            await self._deliver(cursor, sender, partial(self._world.telling.of, due))
        cursor.delivered(due)
        await self._save(cursor)

    # One delivery

    async def _deliver(self, cursor: Cursor, sender: Sender, make: Callable[[], Awaitable[Made | None]]) -> None:
        """Try until it is acknowledged, or there is nothing to tell any more. Raises `_Disabled`."""
        while True:
            again = self._again = trio.Event()
            made = await make()
            if made is None:
                return
            attempt = await sender.send(*made)
            if attempt.is_acknowledged:
                self._world.metrics.webhook_delivered(self.config.name)
                if self._failures:
                    log.info("webhook_recovered", name=self.config.name, failures=self._failures)
                self._failures, self._last_error, cursor.failing_ms = 0, "", 0
                return
            wait_s = await self._failed(cursor, attempt, made[0])
            with trio.move_on_after(wait_s):
                await again.wait()

    async def _failed(self, cursor: Cursor, attempt: Attempt, webhook_id: str) -> float:
        """Count and tell a failure; give the time to wait. Raises `_Disabled`."""
        name, now_ms = self.config.name, self._world.clock_ms()
        self._world.metrics.webhook_failed(name)
        self._failures += 1
        self._last_error, self._last_error_ms = attempt.error, now_ms
        if not cursor.failing_ms:
            cursor.failing_ms = now_ms
            await self._save(cursor)
        plan = after(
            attempt,
            failures=self._failures,
            failing_s=max(0, now_ms - cursor.failing_ms) / 1000,
            disable_after_s=self.config.disable_after_s,
            uniform=self._world.uniform,
        )
        if plan.disabled:
            cursor.disabled = plan.disabled
            remedy = f"correct the receiver, then: POST /webhooks/{name}/enable"
            log.error("webhook_disabled", name=name, webhook_id=webhook_id, reason=plan.disabled, remedy=remedy)
            await self._save(cursor)
            raise _Disabled
        log.warning(
            "webhook_failed", name=name, webhook_id=webhook_id, error=attempt.error, failures=self._failures,
            wait_seconds=round(plan.wait_s, 1),
        )  # fmt: skip
        return plan.wait_s

    async def _save(self, cursor: Cursor) -> None:
        """Have the cursor on disk as it is now."""
        async with self._saving:
            await self._world.write_with_room(lambda: self._world.store.save(self.config.name, cursor))
            self._saved, self._saved_s = (cursor.seq, cursor.place), trio.current_time()
