"""What a hook is told of the first rows of boards: that they changed, and who overtook whom. Pure.

    rows = FirstRows(scoreboard, hook, form, interval_s)
    rows.begin(cursor)                              nothing of what is now is news
    rows.changed(["main"])                          events touched these boards
    rows.look(cursor, now_s)                        moves marks, and adds to `cursor.pending`
    rows.of_top(cursor, pending)                    an id and a body, of now; None: nothing to tell any more
    rows.withdraw(cursor, pending)                  it was not told: the next look finds the newest one
    rows.of_overtaken(cursor, pending)
    for board_id, past in rows.ended(cursor): rows.close(cursor, board_id, past, final_rows)

Theory: states are no events. Between two looks a board may change a thousand times, and one delivery tells of all. So a
look compares with the mark: what was told last. What it finds becomes pending, and is saved before it is sent.

Rules:
- A board is looked at when events touched it, at most once in an interval, and never while something of it is pending.
  The first change after a quiet time is found at once.
- A top that could not be delivered is replaced by the newest one. Who overtook whom is kept until it is acknowledged.
- All of it is of the public: a frozen board does not change, and shows at its end what came meanwhile.
- Where a period ended since the mark, its final rows say who overtook whom until then. The next one begins empty.
- After a restart the ids behind the digests are looked for among the first OVERTAKEN_LOOK rows.
- An erased user is forgotten at once (`forget`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from engine.board import Board
from engine.board_rules import PastPeriod
from engine.ranking import TOP_WATCHED, FinalRow
from engine.scoreboard import Scoreboard
from server.live.board_view import BoardView
from server.live.encoding import Entry, Moment, Rows, about, entries_of, top_body
from server.live.names import NameForm, Names
from server.settings.webhooks import TOP_CHANGED, USER_OVERTAKEN, WebhookConfig
from server.webhooks.cursor import Cursor, Mark, OvertakenPending, Passed, TopPending
from server.webhooks.limits import OVERTAKEN_LOOK
from server.webhooks.overtaking import overtaken
from server.webhooks.payloads import OvertakenData, Overtaking, envelope, id_of, row_texts


class FirstRows:
    """See above. `interval_s` is the shortest time between two deliveries about one board."""

    def __init__(self, scoreboard: Scoreboard, hook: WebhookConfig, form: NameForm, interval_s: float) -> None:
        self._scoreboard = scoreboard
        self._hook = hook
        self._form = form
        self._interval_s = interval_s
        self._wanted = {TOP_CHANGED, USER_OVERTAKEN} & set(hook.events)
        self._touched: dict[str, None] = dict.fromkeys(scoreboard.boards)
        # By board: whether it is frozen, and the last change that was seen.
        self._seen: dict[str, tuple[bool, int]] = {}
        self._due_s: dict[str, float] = {}
        self._users: dict[str, dict[str, str]] = {}  # by board and digest

    def begin(self, cursor: Cursor) -> None:
        """Take the rows of now as told."""
        for board in self._boards(list(self._scoreboard.boards)):
            rows = self._rows(board)
            if rows:
                cursor.marks[board.board_id] = self._mark(cursor, board, rows)

    def changed(self, board_ids: Iterable[str]) -> None:
        """Note that events touched these boards."""
        if self._wanted:
            self._touched.update(dict.fromkeys(board_ids))

    def look(self, cursor: Cursor, now_s: float) -> None:
        """Find what is to be told, make it pending, and mark it as told."""
        busy = {each.board_id for each in cursor.pending}
        touched, self._touched = self._touched, {}
        for board in self._boards(touched):
            name, seen = board.board_id, (self._is_frozen(board), board.top10_seq)
            if self._seen.get(name) == seen:
                continue
            if name in busy or now_s < self._due_s.get(name, -math.inf) or self._past_of(cursor, board) is not None:
                self._touched[name] = None
                continue
            self._seen[name] = seen
            if self._look_at(cursor, board):
                self._due_s[name] = now_s + self._interval_s

    def wait_s(self, now_s: float) -> float:
        """Give the time until a touched board may be looked at; infinity if there is none."""
        late = [self._due_s.get(name, now_s) for name in self._touched]
        return max(0.0, min(late) - now_s) if late else math.inf

    def of_top(self, cursor: Cursor, pending: TopPending) -> tuple[TopPending, str, bytes] | None:
        """Give the newest top in place of one that is pending: what is pending then, its id and body."""
        board = self._scoreboard.board(pending.board_id)
        if board is None:
            return None
        shown, rows = board.public, self._rows(board.public)
        digest = _digest(rows)
        if digest != pending.rows:
            pending = TopPending(board.board_id, self._scoreboard.epoch, shown.seq, self._scoreboard.time_ms, digest)
            mark = cursor.marks.get(board.board_id)
            if mark is not None:
                cursor.marks[board.board_id] = msgspec.structs.replace(mark, rows=digest)
        moment = Moment(
            board.board_id, pending.epoch, pending.seq, pending.time_ms, about(shown.definition),
            self._scoreboard.mark.history,
        )  # fmt: skip
        body = envelope(TOP_CHANGED, pending.time_ms, msgspec.Raw(top_body(rows, moment)))
        return pending, id_of(pending.epoch, pending.seq, TOP_CHANGED, board.board_id), body

    def withdraw(self, cursor: Cursor, pending: TopPending) -> None:
        """Have the next look tell the top of a board, whatever it is then."""
        name = pending.board_id
        mark = cursor.marks.get(name, Mark(0, "", ()))
        cursor.marks[name] = msgspec.structs.replace(mark, rows="")
        self._touched[name] = None
        self._seen.pop(name, None)
        self._due_s.pop(name, None)

    def of_overtaken(self, cursor: Cursor, pending: OvertakenPending) -> tuple[str, bytes] | None:
        """Give the id and the body of a delivery. Who was erased or is inactive is left out."""
        board = self._scoreboard.board(pending.board_id)
        if board is None:
            return None
        shown, names = board.public, self._names(board.board_id)
        found: list[Overtaking] = []
        for each in pending.passed:
            who = self._user(cursor, shown, each.who)
            whom = tuple(user for one in each.whom if (user := self._user(cursor, shown, one)) is not None)
            if who is not None and whom:
                found.append(Overtaking(who, each.rank, each.score, whom, names.name(who)))
        if not found:
            return None
        data = OvertakenData(board.board_id, tuple(found), pending.epoch, pending.seq)
        body = envelope(USER_OVERTAKEN, pending.time_ms, data)
        return id_of(pending.epoch, pending.seq, USER_OVERTAKEN, board.board_id), body

    def ended(self, cursor: Cursor) -> list[tuple[str, PastPeriod]]:
        """Give the touched boards whose period ended since their mark, with that period."""
        found = ((board.board_id, self._past_of(cursor, board)) for board in self._boards(list(self._touched)))
        return [(board_id, past) for board_id, past in found if past is not None]

    def close(self, cursor: Cursor, board_id: str, past: PastPeriod, rows: Sequence[FinalRow]) -> None:
        """Find who overtook whom until a period ended, which has these first rows. The next one begins empty."""
        self.learn(cursor, board_id, rows)
        mark, order = cursor.marks[board_id], cursor.digests(row.user_id for row in rows)
        first, behind = order[:TOP_WATCHED], set(order[TOP_WATCHED:])
        passed = _passed(mark.order, first, rows, behind)
        if passed:
            epoch = self._scoreboard.epoch_of(past.seq)
            cursor.pending.append(OvertakenPending(board_id, epoch, past.seq, self._scoreboard.time_ms, passed))
        cursor.marks[board_id] = Mark(past.seq, mark.rows, ())

    def lacks(self, cursor: Cursor, pending: OvertakenPending) -> PastPeriod | None:
        """Give the past period that says whose a digest is that nothing else tells; None if none is needed."""
        board = self._scoreboard.board(pending.board_id)
        if board is None:
            return None
        shown, digests = board.public, {each for one in pending.passed for each in (one.who, *one.whom)}
        if all(self._user(cursor, shown, each) is not None for each in digests) or shown.definition is None:
            return None
        return next((past for past in shown.definition.past if past.seq >= pending.seq), None)

    def learn(self, cursor: Cursor, board_id: str, rows: Iterable[FinalRow]) -> None:
        """Take in whose digests are whose."""
        known = self._users.setdefault(board_id, {})
        known.update((cursor.digest(row.user_id), row.user_id) for row in rows)

    def forget(self, user_id: str) -> None:
        """Forget a user who was erased."""
        for known in self._users.values():
            for digest in [digest for digest, user in known.items() if user == user_id]:
                del known[digest]

    def _past_of(self, cursor: Cursor, shown: Board) -> PastPeriod | None:
        """Give the period that ended since the mark of a board, if who overtook whom in it is still to be told."""
        mark = cursor.marks.get(shown.board_id)
        if mark is None or not mark.order or USER_OVERTAKEN not in self._wanted or shown.definition is None:
            return None
        return next((past for past in shown.definition.past if past.seq > mark.period_seq), None)

    def _look_at(self, cursor: Cursor, shown: Board) -> bool:
        name, rows = shown.board_id, self._rows(shown)
        old, new = cursor.marks.get(name), self._mark(cursor, shown, rows)
        epoch, time_ms, added = self._scoreboard.epoch, self._scoreboard.time_ms, len(cursor.pending)
        if TOP_CHANGED in self._wanted and new.rows != (old.rows if old is not None else _digest(())):
            cursor.pending.append(TopPending(name, epoch, shown.seq, time_ms, new.rows))
        if USER_OVERTAKEN in self._wanted and old is not None:
            users = {each: self._user(cursor, shown, each) for each in old.order}
            behind = {each for each, user in users.items() if user is not None and shown.rank(user) is not None}
            passed = _passed(old.order, new.order, rows, behind - set(new.order))
            if passed:
                cursor.pending.append(OvertakenPending(name, epoch, shown.seq, time_ms, passed))
        if rows:
            cursor.marks[name] = new
        else:
            cursor.marks.pop(name, None)
        return len(cursor.pending) > added

    def _boards(self, board_ids: Iterable[str]) -> Iterator[Board]:
        """Give what the public sees of those of these boards that the hook is told of."""
        for board_id in board_ids if self._wanted else ():
            board = self._scoreboard.board(board_id)
            if board is not None and self._hook.concerns(board_id):
                yield board.public

    def _is_frozen(self, shown: Board) -> bool:
        return self._scoreboard.boards[shown.board_id] is not shown

    def _rows(self, shown: Board) -> Rows:
        return entries_of(shown.top(TOP_WATCHED), self._names(shown.board_id))

    def _names(self, board_id: str) -> Names:
        return BoardView(board_id).names(self._scoreboard, self._form)

    def _mark(self, cursor: Cursor, shown: Board, rows: Rows) -> Mark:
        """Give the mark of these rows, and remember whose the digests are."""
        order = cursor.digests(row.user_id for row in rows)
        known = self._users.get(shown.board_id, {})
        old = cursor.marks.get(shown.board_id)
        kept = {each: known[each] for each in (old.order if old is not None else ()) if each in known}
        self._users[shown.board_id] = kept | dict(zip(order, (row.user_id for row in rows), strict=True))
        past = () if shown.definition is None else shown.definition.past
        return Mark(past[-1].seq if past else 0, _digest(rows), order)

    def _user(self, cursor: Cursor, shown: Board, digest: str) -> str | None:
        """Give the user whom a digest stands for, None for one who was erased or is inactive."""
        known = self._users.setdefault(shown.board_id, {})
        if digest not in known:
            known.update((cursor.digest(row.user_id), row.user_id) for row in shown.top(OVERTAKEN_LOOK))
        user_id = known.get(digest)
        return user_id if user_id is not None and self._scoreboard.is_active(user_id) else None


def _passed(
    before: Sequence[str], after: Sequence[str], rows: Sequence[Entry | FinalRow], behind: Collection[str]
) -> tuple[Passed, ...]:
    return tuple(
        Passed(after[place], rows[place].rank, rows[place].score, tuple(whom))
        for place, whom in overtaken(before, after, behind)
    )


def _digest(rows: Rows) -> str:
    return hashlib.blake2b(msgspec.json.encode(row_texts(rows)), digest_size=16).hexdigest()
