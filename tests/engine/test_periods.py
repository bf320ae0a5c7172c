"""When a period ends and the next one begins, and whose points are whose. Each scenario has its own calendar times."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.board_rules import BoardRules
from engine.commands import BoardReceipt, CloseBoard, FreezeBoard, Increment, Receipt, Rejection, ResetBoard, RevealRows
from engine.events import BoardFrozen, BoardPut, ClockCorrected, Incremented, PeriodChanged
from engine.schedule import Period, Schedule, Season
from tests.engine.games import Game, ms
from tests.engine.model import put, rows

WEEKLY = BoardRules({"WIN": 10}, schedule=Schedule("week"))
DAILY = BoardRules({"WIN": 10}, schedule=Schedule("day"))
PLAIN = BoardRules({"WIN": 10})


def test_a_week_ends_while_nobody_plays() -> None:
    """The alarm is enough: the board is empty, and the file of the week has its last ranking."""
    game = Game("2026-11-27 12:00")
    game.put(WEEKLY)
    game.win("ann")
    game.reach("2026-11-29 23:59")
    game.alarm()
    assert game.past() == []
    game.reach("2026-11-30 00:00")
    game.alarm()
    assert game.running() == ("2026-W49", ms("2026-11-30 00:00"), ms("2026-12-07 00:00"))
    assert game.past() == [("2026-W48", 1)]
    assert rows(game.board()) == []
    assert [(row.user_id, row.score) for row in game.ended[0].ranking.all_rows()] == [("ann", 10)]


def test_an_action_belongs_to_the_period_of_its_time() -> None:
    """The last action of Sunday counts for the old week, the first one of Monday for the new one, from zero."""
    game = Game("2026-11-29 23:59")
    game.put(WEEKLY)
    assert game.win("ann") == 10
    game.reach("2026-11-30 00:00")
    assert game.win("ann") == 10
    kinds = [(type(event), event.time_ms) for event in game.events()[1:]]
    monday = ms("2026-11-30 00:00")
    assert kinds == [(Incremented, monday - 60_000), (PeriodChanged, monday), (Incremented, monday)]
    assert game.past() == [("2026-W48", 1)]


def test_a_retry_after_the_change_is_a_duplicate_without_a_score() -> None:
    """The action counted in the week before: nothing is added, and the user has no points in this one yet."""
    game = Game("2026-11-29 23:59")
    game.put(WEEKLY)
    action = Increment("ann", "a", "WIN", "cup", "game")
    [first] = game.write(action)
    game.reach("2026-11-30 00:00")
    [again] = game.write(action)
    assert isinstance(first, Receipt)
    assert isinstance(again, Receipt)
    assert (again.applied, again.seq, again.new_score, again.delta) == (False, first.seq, 0, 0)
    assert (again.rank, again.previous_rank) == (None, None)
    assert rows(game.board()) == []


def test_three_periods_that_passed_are_one_record() -> None:
    """The leader was down from Friday to Tuesday: the days between are noted as passed, with nobody in them."""
    game = Game("2026-11-27 12:00")
    game.put(DAILY)
    game.win("ann")
    game.reach("2026-12-01 08:00")
    assert game.win("bob") == 10
    [change] = [event for event in game.events() if isinstance(event, PeriodChanged)]
    assert [period.id for period in change.passed] == ["2026-11-28", "2026-11-29", "2026-11-30"]
    assert game.past() == [("2026-11-27", 1), ("2026-11-28", 0), ("2026-11-29", 0), ("2026-11-30", 0)]
    assert game.running() == ("2026-12-01", ms("2026-12-01 00:00"), ms("2026-12-02 00:00"))
    spans = [(past.period.begins_ms, past.period.ends_ms) for past in game.definition().past]
    assert [ends for _, ends in spans] == [*(begins for begins, _ in spans[1:]), ms("2026-12-01 00:00")]
    assert len(game.ended) == 1


def test_the_list_of_past_periods_is_bounded() -> None:
    """Two are kept, also where more have passed; the oldest go."""
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("day"), keep_periods=2))
    for day in (28, 29, 30):
        game.win("ann")
        game.reach(f"2026-11-{day} 12:00")
    game.alarm()
    assert game.past() == [("2026-11-28", 1), ("2026-11-29", 1)]
    game.reach("2026-12-24 12:00")
    game.alarm()
    assert game.past() == [("2026-12-22", 0), ("2026-12-23", 0)]
    assert len(game.events()) == 1 + 3 + 4


@pytest.mark.parametrize("rules", [PLAIN, DAILY])
def test_two_resets_on_one_day_give_two_ids(rules: BoardRules) -> None:
    """The second one has a number at its end. A board without a schedule names its periods by the day of the reset."""
    game = Game("2026-11-27 08:00")
    game.put(rules)
    for hour in ("09", "10"):
        game.win("ann")
        game.reach(f"2026-11-27 {hour}:00")
        [receipt] = game.write(ResetBoard("cup", "ops"))
        assert isinstance(receipt, BoardReceipt)
        assert receipt.applied
    assert game.past() == [("2026-11-27", 1), ("2026-11-27.2", 1)]
    second = game.definition().past[1].period
    assert (second.begins_ms, second.ends_ms) == (ms("2026-11-27 09:00"), ms("2026-11-27 10:00"))
    if rules is DAILY:
        assert game.running() == ("2026-11-27.3", ms("2026-11-27 10:00"), ms("2026-11-28 00:00"))
    else:
        assert game.definition().period is None


def test_a_reset_in_the_middle_of_a_week() -> None:
    """The week goes on from zero under another id, and ends when it would have ended. The next one has its own name."""
    game = Game("2026-11-23 12:00")
    game.put(WEEKLY)
    game.win("ann")
    game.reach("2026-11-25 12:00")
    game.write(ResetBoard("cup", "ops", "2026-W48"))
    assert game.running() == ("2026-W48.2", ms("2026-11-25 12:00"), ms("2026-11-30 00:00"))
    game.win("bob")
    game.reach("2026-11-30 00:01")
    game.alarm()
    assert game.past() == [("2026-W48", 1), ("2026-W48.2", 1)]
    assert game.running()[0] == "2026-W49"


def test_a_reset_brings_a_board_back_from_a_future_that_a_wrong_clock_made() -> None:
    """The clock was a year ahead when a week ended, and was corrected since: the next week begins now.

    Its name was used for one of the weeks that seemed to have passed.
    """
    game = Game("2026-11-27 12:00")
    game.put(WEEKLY)
    game.reach("2027-11-27 12:00")
    game.alarm()
    assert game.running()[0] == "2027-W47"
    seq = game.scoreboard.seq + 1
    game.scoreboard.apply(ClockCorrected(seq, ms("2026-11-30 12:00"), seq, 0, "stepped back"), 1)
    game.reach("2026-11-30 12:00")
    [receipt] = game.write(ResetBoard("cup", "ops"))
    assert isinstance(receipt, BoardReceipt)
    assert receipt.applied
    assert game.running() == ("2026-W49.2", ms("2026-11-30 12:00"), ms("2026-12-07 00:00"))


def test_no_id_comes_again_when_old_periods_are_not_kept_any_more() -> None:
    """A retry of a reset names a period that was, and must not end another one."""
    game = Game("2026-11-27 12:00")
    game.put(replace(WEEKLY, keep_periods=1))
    ids = [game.running()[0]]
    for _ in range(5):
        game.write(ResetBoard("cup", "ops", ids[-1]))
        ids.append(game.running()[0])
    assert ids == ["2026-W48", *(f"2026-W48.{number}" for number in range(2, 7))]
    for period in ids[:-1]:
        [refused] = game.write(ResetBoard("cup", "ops", period))
        assert isinstance(refused, Rejection)
        assert refused.code == "CONFLICT"


def test_a_reset_of_a_period_that_does_not_run_is_refused() -> None:
    """A caller who saw last week's board does not end this week's; one who sees none that ends says none."""
    game = Game("2026-11-29 12:00")
    game.put(WEEKLY)
    game.reach("2026-11-30 12:00")
    [refusal] = game.write(ResetBoard("cup", "ops", "2026-W48"))
    assert isinstance(refusal, Rejection)
    assert refusal.code == "CONFLICT"
    assert "'2026-W49' does" in refusal.message
    assert game.past() == [("2026-W48", 0)]


def test_a_season_begins_is_over_and_another_one_follows() -> None:
    """Before it and after it nothing counts; its last ranking stays until a new season is put."""
    game = Game("2026-11-27 12:00")
    first = Season(ms("2026-12-01 00:00"), ms("2026-12-24 00:00"))
    game.put(BoardRules({"WIN": 10}, season=first))
    [early] = game.write(Increment("ann", "early", "WIN", "cup", "game"))
    assert isinstance(early, Rejection)
    assert (early.code, early.details["startsAtMs"]) == ("BOARD_NOT_OPEN", ms("2026-12-01 00:00"))
    game.reach("2026-12-01 00:00")
    assert game.win("ann") == 10
    game.reach("2026-12-24 00:00")
    assert game.win("ann") == "BOARD_CLOSED"
    assert game.definition().over
    assert rows(game.board()) == [(1, "ann", 10)]
    [reset] = game.write(ResetBoard("cup", "ops"))
    assert isinstance(reset, Rejection)
    assert game.ended == []
    second = Season(ms("2026-12-24 12:00"), ms("2027-01-06 00:00"))
    game.put(BoardRules({"WIN": 1}, score="count", season=second))
    assert game.past() == [("2026-12-01", 1)]
    assert rows(game.board()) == []
    assert (game.definition().over, game.win("ann")) == (False, "BOARD_NOT_OPEN")
    game.reach("2026-12-24 12:00")
    assert game.win("ann") == 1
    assert game.running() == ("2026-12-24", second.begins_ms, second.ends_ms)


def test_a_season_that_is_over_goes_on_as_a_board_without_periods() -> None:
    """Its ranking is kept as a past period, and the board is open again."""
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10}, season=Season(ends_ms=ms("2026-12-01 00:00"))))
    game.win("ann")
    game.reach("2026-12-02 00:00")
    game.put(PLAIN)
    assert game.past() == [("2026-11-27", 1)]
    assert (game.definition().period, game.win("ann")) == (None, 10)


def test_a_change_of_rules_in_the_middle_of_a_period() -> None:
    """Scores stay; the points are new from then on, and the period has the id and the end of the new rules."""
    game = Game("2026-11-27 12:00")
    game.put(WEEKLY)
    game.win("ann")
    game.put(BoardRules({"WIN": 3}, schedule=Schedule("day")))
    assert game.running() == ("2026-11-27", ms("2026-11-27 00:00"), ms("2026-11-28 00:00"))
    assert (game.win("ann"), game.past()) == (13, [])
    refusal = game.put(BoardRules({"WIN": 3}, score="best", schedule=Schedule("day")))
    assert isinstance(refusal, Rejection)
    assert (refusal.code, refusal.details["field"]) == ("CONFLICT", "score")
    game.reach("2026-11-28 00:00")
    assert isinstance(game.put(BoardRules({"WIN": 3}, score="best", schedule=Schedule("day"))), BoardReceipt)
    assert game.past() == [("2026-11-27", 1)]


def test_rules_without_periods_let_the_running_one_go_on() -> None:
    """It has no end any more. A reset ends it, and the board goes on without periods."""
    game = Game("2026-11-27 12:00")
    game.put(WEEKLY)
    game.win("ann")
    game.put(PLAIN)
    assert game.running() == ("2026-W48", ms("2026-11-23 00:00"), None)
    game.reach("2027-05-01 12:00")
    assert game.win("ann") == 20
    game.write(ResetBoard("cup", "ops"))
    assert game.past() == [("2026-W48", 1)]
    assert (game.definition().period, game.win("ann")) == (None, 10)


class MovingZone:
    """A calendar of days whose zone may change: `late_ms` is by how much a day begins after UTC's."""

    def __init__(self) -> None:
        self.late_ms = 0
        self.gone = False

    def period_at(self, _schedule: Schedule, time_ms: int) -> Period:
        """Give the day."""
        if self.gone:
            raise ValueError("there is no such zone any more")
        day = 86_400_000
        begins_ms = (time_ms - self.late_ms) // day * day + self.late_ms
        return Period(f"day {(begins_ms - self.late_ms) // day}", begins_ms, begins_ms + day)


HOUR_MS = 3_600_000
NOON = "1970-01-11 12:00"


@pytest.mark.parametrize("at", ["1970-01-12 00:00", "1970-01-12 00:30", "1970-01-12 01:30"])
def test_a_zone_whose_days_end_later_from_now_on(at: str) -> None:
    """The day that runs keeps its end, and the next day is longer: it begins there, whenever the leader notices."""
    zone = MovingZone()
    game = Game(NOON, zone.period_at)
    game.put(DAILY)
    game.win("ann")
    zone.late_ms = HOUR_MS
    game.reach(at)
    assert game.win("ann") == 10
    midnight = ms("1970-01-12 00:00")
    assert game.past() == [("day 10", 1)]
    assert game.definition().past[0].period.ends_ms == midnight
    assert game.running() == ("day 11", midnight, midnight + 25 * HOUR_MS)


def test_a_zone_that_changed_some_days_ago() -> None:
    """The leader was down since: the longer day is one of those that passed, and no time belongs to two of them."""
    zone = MovingZone()
    game = Game(NOON, zone.period_at)
    game.put(DAILY)
    zone.late_ms = HOUR_MS
    game.reach("1970-01-14 12:00")
    game.alarm()
    spans = [(past.period.id, past.period.begins_ms, past.period.ends_ms) for past in game.definition().past]
    midnight = ms("1970-01-12 00:00")
    assert [span[0] for span in spans] == ["day 10", "day 11", "day 12"]
    assert spans[1][1:] == (midnight, midnight + 25 * HOUR_MS)
    assert game.running() == ("day 13", midnight + 49 * HOUR_MS, midnight + 73 * HOUR_MS)


def test_a_zone_whose_days_end_earlier_from_now_on() -> None:
    """The day that runs keeps its end, and the next one is shorter, by the hour that it lost."""
    zone = MovingZone()
    game = Game(NOON, zone.period_at)
    game.put(DAILY)
    zone.late_ms = -HOUR_MS
    game.reach("1970-01-11 23:30")
    game.win("ann")
    assert game.past() == []
    game.reach("1970-01-12 00:00")
    game.alarm()
    midnight = ms("1970-01-12 00:00")
    assert game.past() == [("day 10", 1)]
    assert game.running() == ("day 11", midnight, midnight + 23 * HOUR_MS)


def test_a_zone_that_changes_after_a_reset() -> None:
    """The second part of the day has an id of its own, and the next day is the longer one all the same."""
    zone = MovingZone()
    game = Game(NOON, zone.period_at)
    game.put(DAILY)
    game.write(ResetBoard("cup", "ops"))
    assert game.running()[0] == "day 10.2"
    zone.late_ms = HOUR_MS
    game.reach("1970-01-12 00:10")
    game.alarm()
    midnight = ms("1970-01-12 00:00")
    assert game.past() == [("day 10", 0), ("day 10.2", 0)]
    assert game.running() == ("day 11", midnight, midnight + 25 * HOUR_MS)


def test_a_calendar_that_knows_no_next_period() -> None:
    """The board is over, and its ranking stays: nothing is guessed. New rules begin an empty period."""
    zone = MovingZone()
    game = Game(NOON, zone.period_at)
    game.put(DAILY)
    game.win("ann")
    zone.gone = True
    game.reach("1970-01-12 00:00")
    assert game.win("ann") == "BOARD_CLOSED"
    assert (game.definition().over, rows(game.board()), game.past()) == (True, [(1, "ann", 10)], [])
    [refusal] = game.write(ResetBoard("cup", "ops"))
    assert isinstance(refusal, Rejection)
    assert isinstance(game.put(BoardRules({"WIN": 10}, schedule=Schedule("hour"))), Rejection)
    zone.gone = False
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("hour")))
    assert game.past() == [("day 10", 1)]
    assert (game.running()[0], game.win("ann")) == ("day 11", 10)


def test_a_reset_that_the_calendar_can_not_name_is_refused() -> None:
    """Nothing ends then."""
    zone = MovingZone()
    game = Game(NOON, zone.period_at)
    game.put(DAILY)
    zone.gone = True
    [refusal] = game.write(ResetBoard("cup", "ops"))
    assert isinstance(refusal, Rejection)
    assert (refusal.code, game.past()) == ("INVALID_REQUEST", [])


def frozen_game(freeze: str) -> Game:
    """A daily board with ann on it, whose freeze is planned for this time."""
    game = Game("2026-11-27 12:00")
    game.put(DAILY)
    game.win("ann")
    game.write(FreezeBoard("cup", "ops", ms(freeze)))
    return game


def test_a_freeze_before_the_end_of_a_period() -> None:
    """The public goes on seeing the day as it was frozen, after its end too. Then there is nothing to reveal."""
    game = frozen_game("2026-11-27 23:00")
    game.reach("2026-11-27 23:30")
    game.win("ann")
    assert rows(game.board().public) == [(1, "ann", 10)]
    game.reach("2026-11-28 00:00")
    assert game.win("bob") == 10
    assert rows(game.board().public) == [(1, "ann", 10)]
    assert [(row.user_id, row.score) for row in game.ended[0].ranking.all_rows()] == [("ann", 20)]
    [refusal] = game.write(RevealRows("cup", 1, "ops"))
    assert isinstance(refusal, Rejection)
    assert refusal.code == "CONFLICT"


def test_a_freeze_after_the_end_of_a_period() -> None:
    """The plan outlives the change, and the public sees the new day up to then."""
    game = frozen_game("2026-11-28 01:00")
    game.reach("2026-11-28 00:30")
    game.win("bob")
    assert game.definition().freeze_at_ms == ms("2026-11-28 01:00")
    game.reach("2026-11-28 01:00")
    assert game.win("bob") == 20
    assert rows(game.board().public) == [(1, "bob", 10)]


@pytest.mark.parametrize("noticed", ["2026-11-28 00:00", "2026-11-28 06:00"])
def test_a_freeze_at_the_end_of_a_period(noticed: str) -> None:
    """The freeze comes first: the public sees the last ranking of the day, however late the leader notices."""
    game = frozen_game("2026-11-28 00:00")
    game.reach(noticed)
    assert game.win("bob") == 10
    assert [type(event) for event in game.events()[3:5]] == [BoardFrozen, PeriodChanged]
    assert rows(game.board().public) == [(1, "ann", 10)]
    assert rows(game.board()) == [(1, "bob", 10)]
    assert game.past() == [("2026-11-27", 1)]


def test_the_freezes_and_ends_of_one_night_come_in_their_order() -> None:
    """The leader slept over a freeze and the end after it: the day is kept whole, and the public sees the freeze."""
    game = frozen_game("2026-11-27 23:00")
    game.reach("2026-11-29 12:00")
    game.alarm()
    assert [type(event) for event in game.events()[3:]] == [BoardFrozen, PeriodChanged]
    assert game.past() == [("2026-11-27", 1), ("2026-11-28", 0)]
    assert rows(game.board().public) == [(1, "ann", 10)]


def test_a_closed_board_changes_no_period_any_more() -> None:
    """Its last ranking stays as it was closed."""
    game = Game("2026-11-27 12:00")
    game.put(DAILY)
    game.win("ann")
    game.write(CloseBoard("cup", "ops"))
    game.reach("2026-12-27 12:00")
    assert game.scoreboard.due_ms is None
    assert game.win("ann") == "BOARD_CLOSED"
    assert (rows(game.board()), game.past()) == ([(1, "ann", 10)], [])


def test_what_ended_stays_ended_when_the_clock_goes_back() -> None:
    """Nothing is begun twice: actions count in the period that runs, and it ends when its own end is reached."""
    game = Game("2026-11-27 23:59")
    game.put(DAILY)
    game.reach("2026-11-28 00:01")
    game.win("ann")
    seq = game.scoreboard.seq + 1
    game.reach("2026-11-27 23:50")
    game.scoreboard.apply(ClockCorrected(seq, game.now_ms, seq, 660_000, "test"), 1)
    assert game.win("ann") == 20
    game.reach("2026-11-28 00:05")
    assert game.win("ann") == 30
    assert (game.past(), game.running()[0]) == ([("2026-11-27", 0)], "2026-11-28")


def test_a_board_whose_rules_change_only_in_words_keeps_its_period() -> None:
    """A title is no reason to begin anew, nor to end when another period would."""
    game = Game("2026-11-27 12:00")
    game.put(WEEKLY)
    before = game.running()
    game.win("ann")
    game.reach("2026-11-28 12:00")
    game.put(BoardRules({"WIN": 10}, title="Cup", schedule=Schedule("week")))
    assert (game.running(), rows(game.board())) == (before, [(1, "ann", 10)])
    assert isinstance(game.events()[-1], BoardPut)


def test_other_words_do_not_open_a_season_that_is_over() -> None:
    """A title and other points are no new season: nothing counts, and the last ranking stays."""
    game = Game("2026-11-27 12:00")
    season = Season(ends_ms=ms("2026-12-01 00:00"))
    game.put(BoardRules({"WIN": 10}, season=season))
    game.win("ann")
    game.reach("2026-12-02 00:00")
    game.put(BoardRules({"WIN": 20}, title="Cup", season=season))
    assert (game.definition().over, game.win("ann")) == (True, "BOARD_CLOSED")
    assert (rows(game.board()), game.past()) == ([(1, "ann", 10)], [])


def test_a_row_that_comes_back_below_is_revealed_in_its_turn() -> None:
    """The last user was hidden while the one before was revealed: shown again, that user is next, and not the first."""
    game = Game("2026-11-27 12:00")
    game.put(PLAIN)
    for user, wins in (("ann", 3), ("bob", 2), ("cid", 1)):
        for _ in range(wins):
            game.win(user)
    game.write(FreezeBoard("cup", "ops"))
    for user in ("ann", "cid"):
        game.win(user)
    game.write(put("cid", active=False))
    game.write(RevealRows("cup", 1, "ops"))
    game.write(put("cid", active=True))
    game.write(RevealRows("cup", 1, "ops"))
    assert rows(game.board().public) == [(1, "ann", 30), (2, "bob", 20), (3, "cid", 20)]
    game.write(RevealRows("cup", 1, "ops"))
    assert game.definition().frozen is None
    assert rows(game.board().public) == [(1, "ann", 40), (2, "bob", 20), (3, "cid", 20)]
