#!/usr/bin/env bash
# cronsim's matches near a change of the clocks depend on where it starts, and on whether it goes forward or back.
#
# Seen with cronsim 2.8 on Python 3.11, with the tz database 2026f:
# - Berlin, 2025-10-26, when 02:00 to 03:00 is there twice, "30 2 * * *". Asked at the second 02:10 for the next match,
#   it gives the first 02:30, which was 40 minutes ago. Asked for the last match, it gives yesterday's.
# - Lord Howe, 2025-04-06, when 01:30 to 02:00 is there twice, "45 * * * *". Forward it gives only the first 01:45,
#   back it gives only the second.
# - Santiago, 2025-09-07, which has no midnight. "0 */2 7 9 *" matches at 00:00, a time that is not there, because it
#   came from another day. Back it does not match, and "0 */2 * * *" doesn't either.
#
# So a period's beginning, searched back, need not be the end of the period before, searched forward.
# Without a zone it is exact: ask it for local times only, and see to the clocks yourself (engine/calendar.py).
# Fails if any of this is no longer so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check cronsim==2.8 tzdata==2026.6
PYTHONTZPATH= "$place/venv/bin/python" - <<'PYTHON'
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

BERLIN, LORD_HOWE, SANTIAGO = map(ZoneInfo, ("Europe/Berlin", "Australia/Lord_Howe", "America/Santiago"))


def matches(cron, start, count, reverse=False):
    found = CronSim(cron, start, reverse=reverse)
    return [next(found).astimezone(timezone.utc).strftime("%m-%dT%H:%M") for _ in range(count)]


second = datetime(2025, 10, 26, 2, 10, tzinfo=BERLIN, fold=1)
print("asked at", second.astimezone(timezone.utc).strftime("%m-%dT%H:%M"), "UTC")
after, before = matches("30 2 * * *", second, 1), matches("30 2 * * *", second, 1, reverse=True)
print("the next is", after, "and the last is", before)
assert (after, before) == (["10-26T00:30"], ["10-25T00:30"]), (after, before)

forward = matches("45 * * * *", datetime(2025, 4, 6, 0, 50, tzinfo=LORD_HOWE), 2)
back = matches("45 * * * *", datetime(2025, 4, 6, 2, 50, tzinfo=LORD_HOWE), 2, reverse=True)[::-1]
print("Lord Howe forward", forward, "and back", back)
assert forward == ["04-05T14:45", "04-05T16:15"], forward
assert back == ["04-05T15:15", "04-05T16:15"], back

evening, morning = datetime(2025, 9, 6, 23, 30, tzinfo=SANTIAGO), datetime(2025, 9, 7, 3, tzinfo=SANTIAGO)
dated, daily = matches("0 */2 7 9 *", evening, 1), matches("0 */2 * * *", evening, 1)
back = matches("0 */2 7 9 *", morning, 2, reverse=True)
print("Santiago, of that day", dated, "of each day", daily, "and back", back)
assert (dated, daily) == (["09-07T04:00"], ["09-07T05:00"]), (dated, daily)
assert back == ["09-07T05:00", "09-08T02:00"], back  # the second is of the year before
PYTHON
