"""A user is taken out of a log that was written: the chain holds, the state stays, and no byte of the user is left."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from engine.action_blocks import FORGOTTEN
from engine.actions import key_of
from engine.board_rules import BoardRules, Rules, WatchRules
from engine.commands import Command, FreezeBoard, Increment, PutUser, ResetBoard, ReversalReceipt
from engine.erased import is_erased, pack_seqs, pseudonym_of
from engine.event_records import encode_events
from engine.events import (
    BoardScores,
    Event,
    ImportBegun,
    Incremented,
    PeriodScores,
    Rescored,
    Reversed,
    ScoreImported,
    UserErased,
    UserPut,
)
from engine.record import (
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameFault,
    SegmentHeader,
    Tail,
    chain_start,
    events_of,
    frame_bytes,
    pack_frame,
    pack_segment_header,
    unpack_frame,
)
from engine.recount import Recount
from engine.rewriting import WHO_IS_IN, Forgetting, rewrite_content, rewrite_frame, users_in
from engine.scoreboard import Scoreboard
from snapshots.format import pack
from tests.engine.games import Game
from tests.engine.test_reversals import reverse

GOLDEN = Path(__file__).parent / "golden" / "erased" / "00000000000000000001.log"
LOG_ID = bytes(range(16))
WATCH = WatchRules(growth_per_minute=25, callers_per_user=2, outlier_z=1.0)
RULES = BoardRules({"WIN": 10, "GOAL": 1}, feeds=("year",), watch=WATCH)
USERS = ("ann", "ben", "cid", "dot", "eve")


def erase(game: Game, user: str) -> UserErased:
    """Erase a user as a node does: with the seqs of the actions since the last erasure."""
    scoreboard = game.scoreboard
    seqs = list[int]()
    for event in (event for frame in game.frames for event in frame):
        if isinstance(event, UserErased) and event.user_id == user:
            seqs.clear()
        elif isinstance(event, Incremented) and event.user_id == user:
            seqs.append(event.seq)
    name = pseudonym_of(scoreboard.erasures.count + 1)
    event = UserErased(scoreboard.seq + 1, scoreboard.time_ms, user, name, "dpo", pack_seqs(seqs))
    scoreboard.apply(event, scoreboard.epoch)
    scoreboard._check()
    game.frames.append([event])
    return event


def begin(*, holds: bool = False) -> Game:
    """A board that feeds another, and may hold what flagged users do."""
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10, "GOAL": 2}), "year")
    assert RULES.watch is not None
    game.put(replace(RULES, watch=replace(RULES.watch, action="hold")) if holds else RULES)
    return game


def framed(frames: Sequence[Sequence[Event]]) -> list[Frame]:
    """Pack events as a log does."""
    packed, link = list[Frame](), chain_start(LOG_ID)
    for events in frames:
        packed.append(unpack_frame(pack_frame(list(events), epoch=1, previous=link)))
        link = packed[-1].checksum
    return packed


def state_of(frames: Sequence[Frame]) -> bytes:
    """Replay frames; give the bytes of the state."""
    scoreboard = Scoreboard(Rules({}))
    for frame in frames:
        for event in events_of(frame):
            scoreboard.apply(event, frame.epoch)
        scoreboard.take_ended()
    scoreboard._check()
    return b"".join(pack(scoreboard.capture(), Tail(LOG_ID, 1, scoreboard.seq, frames[-1].checksum)))


def rewritten(frames: Sequence[Frame], erased: Sequence[tuple[str, UserErased]]) -> list[Frame]:
    """Rewrite frames after these erasures."""
    by_user: dict[str, list[tuple[int, str]]] = {}
    for user, event in erased:
        by_user.setdefault(user, []).append((event.seq, event.pseudonym))
    change = Forgetting(by_user)
    return [rewrite_frame(frame, change) or frame for frame in frames]


def random_history(game: Game, lots: random.Random, actions: int) -> None:
    """Points, names, absences, in frames of several events."""
    commands: list[Command] = []
    for _ in range(actions):
        user = lots.choice(USERS)
        what = lots.random()
        if what < 0.75:
            game._actions += 1
            reason, caller = lots.choice(("WIN", "GOAL")), lots.choice((user, "backend"))
            commands.append(Increment(user, f"action {game._actions} of {user}", reason, "cup", caller))
        elif what < 0.9:
            commands.append(PutUser(user, f"The name of {user}", UNSET, lots.choice((user, "ops"))))
        else:
            commands.append(PutUser(user, UNSET, lots.random() < 0.7, "ops"))
        if lots.random() < 0.3:
            game.write(*commands)
            commands.clear()
    game.write(*commands)


def take_back(game: Game, lots: random.Random, turn: int) -> None:
    """Take back a few actions of users who are there, in the running period and in past ones."""
    actions = game.scoreboard.actions
    there = [
        event.seq
        for event in game.events()
        if isinstance(event, Incremented)
        and actions.mark_at(actions.find(key_of(event.action_id))) != FORGOTTEN
        and game.scoreboard.reversals.of_action(event.seq) is None
    ]
    for number, seq in enumerate(lots.sample(there, min(5, len(there)))):
        reverse(game, seq, name=f"undo {turn} {number}")


@pytest.mark.parametrize("seed", range(25))
def test_the_state_after_an_erasure_is_the_same_from_the_log_before_and_after_it_was_rewritten(seed: int) -> None:
    """Byte for byte, for several users, who come back and are erased again; with a freeze in between."""
    lots, game = random.Random(seed), begin(holds=seed % 2 == 0)
    erased: list[tuple[str, UserErased]] = []
    for turn in range(3):
        random_history(game, lots, 30)
        if turn == 1 and seed % 2:
            game.write(FreezeBoard("cup", "ops"))
            random_history(game, lots, 10)
        if turn == 1 and seed % 3 == 0:
            game.write(ResetBoard("cup", "ops"))
        take_back(game, lots, turn)
        user = lots.choice(USERS[:2])
        erased.append((user, erase(game, user)))
    assert game.scoreboard.reviews.flags
    assert any(isinstance(event, Incremented) and event.held for event in game.events()) is (seed % 2 == 0)
    random_history(game, lots, 5)
    before = framed(game.frames)
    after = rewritten(before, erased)
    assert [frame.checksum for frame in after] == [frame.checksum for frame in before]
    link = chain_start(LOG_ID)
    for frame in after:
        assert unpack_frame(frame_bytes(frame)).previous == link
        link = frame.checksum
    assert state_of(after) == state_of(before)
    last = {user: event.seq for user, event in erased}
    for frame in after:
        for event in events_of(frame):
            for user, seq in last.items():
                assert event.seq > seq or user.encode() not in encode_events([event])
    once_more = rewritten(after, erased)
    assert once_more == after


def test_one_is_erased_and_the_others_are_what_they_were() -> None:
    """Scores and ranks of the others stay; the user's actions stay used, and a new one begins a new user."""
    game = begin()
    for user in ("ann", "ben", "ann", "cid"):
        game.win(user)
    game.write(PutUser("ann", "Ann", UNSET, "ops"))
    event = erase(game, "ann")
    assert event.pseudonym == "\x001"
    for board in (game.board("cup"), game.board("year")):
        assert [(row.user_id, row.score, row.rank) for row in board.top(10)] == [("ben", 10, 1), ("cid", 10, 2)]
        assert board.score("ann") is None
    assert game.scoreboard.users.get("ann") is None
    game._actions = 0
    assert game.win("ann") == "ERASED"
    assert game.win("ben") == 10, "a repeated action of another user"
    game._actions = 100
    assert game.win("ann") == 10
    again = erase(game, "ann")
    assert again.pseudonym == "\x002"
    frames = rewritten(framed(game.frames), [("ann", event), ("ann", again)])
    assert {each.user_id for frame in frames for each in events_of(frame) if isinstance(each, Incremented)} == {
        "\x001", "\x002", "ben", "cid",
    }  # fmt: skip


def test_names_actions_and_callers_go_and_the_rest_of_a_record_stays() -> None:
    """An own token is a caller too. A caller of the same name goes with the user, in the records of others too."""
    action = Incremented(1, 5, "cup", "ann", "order 1", 10, "WIN", "ann", 10)
    name = UserPut(2, 5, "ann", "Ann", True, "ops")
    other = Incremented(3, 5, "cup", "ben", "order 2", 10, "WIN", "ann", 10)
    alone = Incremented(4, 5, "cup", "ben", "order of ann", 10, "WIN", "ops", 20)
    [frame] = framed([[action, name, other, alone]])
    new = rewrite_frame(frame, Forgetting({"ann": [(9, "\x001")]}))
    assert new is not None
    events = events_of(new)
    assert events[1:] == [
        replace(name, user_id="\x001", display_name=None), replace(other, caller="\x001"), alone,
    ]  # fmt: skip
    first = events[0]
    assert isinstance(first, Incremented)
    assert is_erased(first.action_id)
    assert first == replace(action, user_id="\x001", caller="\x001", action_id=first.action_id)
    assert rewrite_frame(frame, Forgetting({"nn": [(9, "\x001")]})) is None
    assert rewrite_frame(frame, Forgetting({"order": [(9, "\x001")]})) is None


def test_corrections_forget_the_user_too() -> None:
    """In the event, in the state of a past period, and for a later correction: the user's actions are left alone."""
    game = begin()
    for user in ("ann", "ben", "ann", "ben"):
        game.win(user)
    game.write(ResetBoard("cup", "ops"))
    seqs = [event.seq for event in game.events() if isinstance(event, Incremented)]
    assert isinstance(reverse(game, seqs[0]), ReversalReceipt)
    event = erase(game, "ann")
    before = framed(game.frames)
    after = rewritten(before, [("ann", event)])
    assert state_of(after) == state_of(before)
    assert b"\xa3ann" not in state_of(after)
    assert not any(b"\xa3ann" in frame.body for frame in after)
    events = {each.seq: each for frame in after for each in events_of(frame) if isinstance(each, Incremented)}
    recount = Recount(events, again=False)
    assert recount.users == {"ben"}


def test_an_import_forgets_the_user_too() -> None:
    """The row of the user, and nothing of the other rows; the import stays known."""
    game = begin()
    scoreboard = game.scoreboard
    first, at = scoreboard.seq + 1, scoreboard.time_ms
    frame: list[Event] = [ImportBegun(first, at, "cup", "old", 2, "digest", False, "ops")]
    for row, (user, score) in enumerate((("ann", 70), ("zoe", 50))):
        frame.append(ScoreImported(first + 1 + row, at, "cup", user, score, score, None, "old", row, "ops"))
    for each in frame:
        scoreboard.apply(each, scoreboard.epoch)
    game.frames.append(frame)
    event = erase(game, "ann")
    assert [(row.user_id, row.score, row.rank) for row in game.board().top(10)] == [("zoe", 50, 1)]
    before = framed(game.frames)
    after = rewritten(before, [("ann", event)])
    assert state_of(after) == state_of(before)
    assert b"\xa3ann" not in state_of(after)
    assert not any(b"\xa3ann" in each.body for each in after)
    imported = [each for part in after for each in events_of(part) if isinstance(each, ScoreImported)]
    assert imported == [replace(frame[1], user_id="\x001"), frame[2]]
    assert (known := scoreboard.imports.get("old")) is not None
    assert known.is_finished


def test_every_type_of_event_says_who_is_in_it() -> None:
    """So a new type of event is not forgotten here."""
    assert set(WHO_IS_IN) == set(get_args(Event))


def golden_frames() -> list[Frame]:
    """The frames of the golden segment: a few events, and an erasure, rewritten."""
    events: list[list[Event]] = [
        [
            Incremented(1, 1_000, "main", "ann", "order-1", 10, "WIN", "ann", 10),
            UserPut(2, 1_000, "ann", "Ann", True, "ops"),
        ],
        [Incremented(3, 2_000, "main", "ben", "order-2", 10, "WIN", "backend", 10)],
        [UserErased(4, 3_000, "ann", "\x001", "dpo", pack_seqs([1]))],
        [UserErased(5, 4_000, "ben", "\x002", "dpo", pack_seqs([3]))],
    ]
    change = Forgetting({"ann": [(4, "\x001")]})
    return [rewrite_frame(frame, change) or frame for frame in framed(events)]


def golden_bytes() -> bytes:
    """The golden segment."""
    header = pack_segment_header(SegmentHeader(LOG_ID, 1, 1, chain_start(LOG_ID), 0))
    return header + b"".join(map(frame_bytes, golden_frames())) + bytes(64)


def test_the_bytes_of_a_rewritten_segment_are_fixed() -> None:
    """The golden file has been written once; whoever changes the format must do so knowingly."""
    assert GOLDEN.read_bytes() == golden_bytes()


def test_a_segment_is_rewritten_as_a_whole() -> None:
    """Its zeros go; one without the user is left alone, and one that can't be read is refused."""
    content = golden_bytes()
    change = Forgetting({"ben": [(5, "\x002")]})
    new = rewrite_content(content, change)
    assert new is not None
    assert b"ben" not in new
    assert new[:SEGMENT_HEADER_BYTES] == content[:SEGMENT_HEADER_BYTES]
    assert rewrite_content(new, change) is None
    assert rewrite_content(content, Forgetting({"eve": [(5, "\x001")]})) is None
    with pytest.raises(FrameFault, match="behind the last frame"):
        rewrite_content(content + b"x", change)
    with pytest.raises(FrameFault, match="cut off"):
        rewrite_content(new[:-1] + b"", Forgetting({"backend": [(9, "\x001")]}))


def test_whom_an_event_names() -> None:
    """Users and callers, in whatever field: who is only in a correction must be found, too."""
    rows = (Rescored("ann", None, 0, 0), Rescored("bob", 10, 3, 7))
    scores, periods = (BoardScores("cup", rows[:1]),), (PeriodScores("cup", 5, 1, rows[1:]),)
    event = Reversed(9, 7, "undo", "why", "ref", 1, False, (3,), scores, periods)
    assert users_in(event) == {"ref", "ann", "bob"}
