"""The queue of reviews: users whom the watch of a board flagged, and what was decided about them. Pure.

    reviews.turn(events, time_ms, boards)                  before increments are applied, if `is_due`
    reviews.see(seen, time_ms)                             after them, what `engine.recording` gives
    reviews.decide(event, boards)                          `ReviewDecided`

A flag needs no record: it follows from the events. So each node finds the same reviews, and a restart finds them again.
A flag changes nothing of the board. But where the watch says `hold`, the leader lets the board hold what the user does
next (`engine.holds`), until the review is decided. The id of a review is `SEQ-PLACE`: the event that broke a rule, and
the place of the board among those that the event scored on, its own first.

Invariants:
- A user has at most one open review on a board. While it is open, nothing more is said about the two.
- `_reviews` is in the order of the ids. `_open` has the open ones by board and user, `_decided` the others in the order
  of their decisions.
- A board has a watch exactly if the rules that the log has for it say so. It begins anew with each period, and when the
  rules of the watch change. Reviews stay.
- `holding` are the boards whose watch says `hold` now. A place that holds actions has an open review.
- At OPEN_REVIEWS_MAX open reviews no more are made, with OPEN_HOLDS_MORE on boards that hold. `passed_over` counts the
  events that would have made one.
  The oldest decided reviews are forgotten beyond DECIDED_REVIEWS_KEPT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Literal, Protocol

import msgspec
from msgspec.structs import replace

from engine.board_rules import BoardDefinition, Decision, ReviewRule
from engine.events import Incremented, ReviewDecided
from engine.holds import Holds, Packed, Place
from engine.image import StateImage
from engine.limits import DECIDED_REVIEWS_KEPT, OPEN_HOLDS_MORE, OPEN_REVIEWS_MAX
from engine.steps import Moved, Steps
from engine.watch import Scores, Watch, WatchImage
from engine.windows import Found

PART = "reviews"
"""The name of the part of an image."""

ReviewState = Literal["open", "accepted", "reversed"]


class Review(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A user was flagged by the event `seq`: `value` is what was found, and was more than `limit`.

    `since_ms` is when the actions began that count to it: the window, or the user's first points. Once decided, it has
    the seq and time of the decision, the caller, the note, and the reversal that took the actions back.
    """

    seq: int
    place: int
    time_ms: int
    board_id: str
    user_id: str
    rule: ReviewRule
    value: int
    limit: int
    since_ms: int
    score: int
    state: ReviewState = "open"
    decided_seq: int = 0
    decided_ms: int = 0
    decided_by: str = ""
    note: str = ""
    reversal_id: str = ""

    @property
    def review_id(self) -> str:
        """The id, which also orders the reviews."""
        return f"{self.seq}-{self.place}"


DECIDED_AS: dict[Decision, ReviewState] = {"accept": "accepted", "reverse": "reversed"}


class Seen(Scores, Protocol):
    """A board, as far as it is asked here."""

    def score(self, user_id: str) -> int | None: ...


class _Image(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    reviews: list[Review]
    decided: list[str]
    passed_over: int
    flags: dict[ReviewRule, int]
    watches: list[tuple[str, WatchImage]]
    held: Packed = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Image).decode


class Reviews:
    """All reviews, and the watches of the boards by board."""

    def __init__(self) -> None:
        self.watches: dict[str, Watch] = {}
        self.holding: set[str] = set()
        self.holds = Holds()
        self.flags: dict[ReviewRule, int] = {}  # reviews ever made, by rule
        self.passed_over = 0
        self._reviews: dict[str, Review] = {}
        self._open: dict[Place, str] = {}
        self._decided: deque[str] = deque()
        self.news: list[Review] = []  # made, and not taken yet

    # Reading

    def get(self, review_id: str) -> Review | None:
        """Give a review, None for one that was never made or is forgotten."""
        return self._reviews.get(review_id)

    def all(self) -> Iterable[Review]:
        """Give the reviews that are kept, the oldest first."""
        return self._reviews.values()

    @property
    def open_count(self) -> int:
        """The reviews that wait for a decision."""
        return len(self._open)

    def is_open(self, place: Place) -> bool:
        """Whether a user has an open review on a board."""
        return place in self._open

    def take_news(self) -> list[Review]:
        """Give the reviews that were made since the last call. Who applies events takes them, to tell or to drop."""
        news, self.news = self.news, []
        return news

    # Changing

    def define(self, board_id: str, definition: BoardDefinition | None, *, anew: bool) -> None:
        """Take the definition of a board after an event about it. `anew`: its period ended."""
        if definition is None or definition.rules.watch is None:
            self.watches.pop(board_id, None)
            self.holding.discard(board_id)
            return
        rules, order, old = definition.rules.watch, definition.rules.order, self.watches.get(board_id)
        (self.holding.add if rules.action == "hold" else self.holding.discard)(board_id)
        if anew or old is None or (old.rules, old.order) != (rules, order):
            self.watches[board_id] = Watch(rules, order, definition.begun_ms)

    def is_due(self, time_ms: int) -> bool:
        """Whether `turn` must be called before increments of this time."""
        return any(watch.is_due(time_ms) for watch in self.watches.values())

    def turn(self, events: Sequence[Incremented], time_ms: int, boards: Mapping[str, Seen]) -> None:
        """Begin another minute on the watched boards that these events, all of one time, score on. Before they do.

        The scores of that moment count: a leader applies many events at once, a replica one after the other.
        """
        scored = {event.board_id for event in events}
        scored.update(fed.board_id for event in events if event.fed for fed in event.fed)
        for board_id, watch in self.watches.items():
            if board_id in scored and watch.is_due(time_ms):
                watch.turn(time_ms, boards[board_id])

    def see(self, seen: Iterable[tuple[str, Steps]], time_ms: int) -> None:
        """Look at what increments of one time did on watched boards, each in the order of its steps."""
        flags: list[tuple[int, int, Incremented, Found]] = []
        for board_id, steps in seen:
            for at, found in self.watches[board_id].see(steps, time_ms):
                event, place = steps.origin(at)
                flags.append((event.seq, place, event, found))
        if flags:
            for _, place, event, found in sorted(flags, key=itemgetter(0, 1)):
                self._flag(event, place, found)

    def hold(self, events: Iterable[Incremented], is_here: Callable[[str], bool] = lambda _: True) -> None:
        """Take in what boards hold of increments. Their flags were found before."""
        for event in events:
            if event.held:
                self.holds.add(event, is_here)

    def leave(self, board_id: str, moves: Iterable[Moved]) -> None:
        """Follow users who left a board."""
        watch = self.watches.get(board_id)
        if watch is not None:
            for moved in moves:
                watch.leave(moved)

    def _flag(self, event: Incremented, place: int, found: Found) -> None:
        part = event.fed[place - 1] if place else event
        board_id, score, who = part.board_id, part.new_score, (part.board_id, event.user_id)
        if who in self._open:
            return
        if len(self._open) >= OPEN_REVIEWS_MAX + (OPEN_HOLDS_MORE if board_id in self.holding else 0):
            self.passed_over += 1
            return
        review = Review(
            event.seq, place, event.time_ms, board_id, event.user_id, found.rule, found.value, found.limit,
            found.since_ms, score,
        )  # fmt: skip
        self._reviews[review.review_id] = review
        self._open[who] = review.review_id
        self.flags[found.rule] = self.flags.get(found.rule, 0) + 1
        self.news.append(review)

    def decide(self, event: ReviewDecided, boards: Mapping[str, Seen]) -> None:
        """Apply a decision. A shard that does not hold the board has no such review."""
        review = self._reviews.get(event.review_id)
        if review is None:
            return
        who = (review.board_id, review.user_id)
        assert self._open.pop(who) == event.review_id
        self._reviews[event.review_id] = replace(
            review, state=DECIDED_AS[event.decision], decided_seq=event.seq, decided_ms=event.time_ms,
            decided_by=event.caller, note=event.note, reversal_id=event.reversal_id,
        )  # fmt: skip
        self.holds.release(who)
        self._decided.append(event.review_id)
        if len(self._decided) > DECIDED_REVIEWS_KEPT:
            del self._reviews[self._decided.popleft()]
        watch = self.watches.get(review.board_id)
        if watch is not None:
            board = boards[review.board_id]
            score = board.score(review.user_id) if event.decision == "accept" else None
            watch.clear(review.user_id, board.slot(review.user_id), score)

    def correct(self, time_ms: int) -> None:
        """Follow a correction of the clock."""
        for watch in self.watches.values():
            watch.correct(time_ms)

    def forget(self, user_id: str, pseudonym: str) -> None:
        """Forget a user who was erased, whose reviews go, open ones too. A caller of this id gets the pseudonym."""
        gone = {key for key, review in self._reviews.items() if review.user_id == user_id}
        self._reviews = {
            key: replace(review, decided_by=pseudonym) if review.decided_by == user_id else review
            for key, review in self._reviews.items()
            if key not in gone
        }
        self._open = {who: key for who, key in self._open.items() if key not in gone}
        self._decided = deque(key for key in self._decided if key not in gone)
        self.news = [review for review in self.news if review.user_id != user_id]
        self.holds.forget(user_id)
        for watch in self.watches.values():
            watch.forget(user_id, pseudonym)

    # Images

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Give the part of an image that this is; none if no board was ever watched."""
        data = self.pack()
        return ((PART, data),) if data else ()

    def pack(self) -> bytes:
        """Give the bytes of the part; none if no board was ever watched."""
        if not (self.watches or self._reviews or self.flags):
            return b""
        watches = [(board_id, self.watches[board_id].capture()) for board_id in sorted(self.watches)]
        flags = dict(sorted(self.flags.items()))
        image = _Image(list(self._reviews.values()), list(self._decided), self.passed_over, flags, watches)
        if not self.holds:
            return _encode(msgspec.structs.astuple(image)[:-1])  # as before there were holds
        return _encode(msgspec.structs.replace(image, held=self.holds.pack()))

    @classmethod
    def from_image(cls, state: StateImage) -> Reviews:
        """Make the reviews of an image; it may have none. Raises `msgspec.DecodeError`."""
        reviews = cls()
        data = dict(state.parts).get(PART)
        if data is None:
            return reviews
        image = _decode(data)
        definitions = {board.board_id: board.definition for board in state.boards}
        reviews.flags, reviews.passed_over = image.flags, image.passed_over
        reviews._reviews = {review.review_id: review for review in image.reviews}
        reviews._open = {
            (review.board_id, review.user_id): review.review_id for review in image.reviews if review.state == "open"
        }
        reviews._decided = deque(image.decided)
        reviews.holds = Holds.unpack(image.held)
        for board_id, watch in image.watches:
            definition = definitions[board_id]
            assert definition is not None
            rules = definition.rules
            assert rules.watch is not None
            reviews.watches[board_id] = Watch.from_image(rules.watch, rules.order, watch)
            if rules.watch.action == "hold":
                reviews.holding.add(board_id)
        return reviews

    def _check(self) -> None:
        assert list(self._reviews.values()) == sorted(self._reviews.values(), key=lambda each: (each.seq, each.place))
        opened = {(each.board_id, each.user_id): key for key, each in self._reviews.items() if each.state == "open"}
        assert opened == self._open
        assert set(self._decided) == {key for key, each in self._reviews.items() if each.state != "open"}
        assert len(self._open) <= OPEN_REVIEWS_MAX + OPEN_HOLDS_MORE
        assert self.holding == {key for key, watch in self.watches.items() if watch.rules.action == "hold"}
        self.holds._check()
        assert all(place in self._open for place in self.holds.places())
        for watch in self.watches.values():
            watch._check()
