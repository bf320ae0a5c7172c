"""The rows of an import, read and checked as a whole before the first of them is written.

    source = read_file(path, "csv", now_ms)            raises `BadSource` with the line and the field
    source = read_zset(url, key, ascending=False)      of a Redis server
    for rows in source.rows_from(first, count): …

Rules:
- A score is a whole number from 0 to 2^53 - 1, in plain digits. Nothing is rounded: `1e3`, `12.0`, ` 12` are refused.
- A user comes once. The second line is refused, with the first one named.
- Of equal scores the row that comes first is ahead. Where rows say `reachedAt`, the earlier time comes first, and rows
  without one come last. Rows of an export of ours are in order: its `updatedAt` is taken over, and orders nothing.
- A Redis key must not change meanwhile: it is read under WATCH, and a change refuses the import. Members of equal
  scores keep the order of ZREVRANGE, of ZRANGE on a board where the least score is the best.

Memory: the ids, 16 bytes a row, and names and times where there are any. That grows with the rows, not with their text.
"""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.commands import ImportRow
from engine.errors import ScoreboardError
from engine.limits import ID_CHARACTERS_MAX, SCORE_MAX
from engine.texts import id_fault, name_fault
from server.api.shape_faults import BODY, shape_fault
from server.settings.board_form import instant_ms

FORMATS = ("csv", "ndjson")
REDIS_ROWS = 10_000
"""Members in one answer of Redis: it serves others between two."""

_NO_TIME = -1
_COLUMNS = ("userId", "score", "reachedAt", "displayName", "rank", "updatedAt", "reachedSeq")
"""What a file may have. `rank` and `reachedSeq` are columns of an export, and say nothing that the order does not."""


class BadSource(ScoreboardError):
    """The source can't be imported. Nothing was written."""


class _Line(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    user_id: str
    score: int
    reached_at: str | int | None = None
    display_name: str | None = None
    rank: int | None = None
    updated_at: str | None = None
    reached_seq: int | None = None


class Source:
    """Rows in the order in which they are imported."""

    def __init__(self, now_ms: int) -> None:
        self.digest = ""
        self._now_ms = now_ms
        self._ids: dict[str, None] = {}  # in the order of the rows
        self._scores = array("Q")
        self._times = array("q")
        self._names: dict[int, str] = {}
        self._sorts = False
        self._order: Sequence[int] | None = None
        self._listed: list[str] = []

    def __len__(self) -> int:
        return len(self._scores)

    def add(self, place: str, user_id: str, score: int, reached_at: str | None, name: str | None, shown: str) -> None:
        """Add a row. `shown` is a time that orders nothing. Raises `BadSource`."""
        if not (user_id.isascii() and user_id.isprintable() and 0 < len(user_id) <= ID_CHARACTERS_MAX) and (
            fault := id_fault(user_id)
        ):
            raise BadSource(f"{place}: userId {fault}")
        if not 0 <= score <= SCORE_MAX:
            raise BadSource(f"{place}: score must be from 0 to {SCORE_MAX}, not {score}")
        if user_id in self._ids:
            raise BadSource(f"{place}: userId {user_id!r} came before, in row {list(self._ids).index(user_id) + 1}")
        if name is not None:
            if fault := name_fault(name):
                raise BadSource(f"{place}: displayName {fault}")
            self._names[len(self)] = name
        time = reached_at or shown
        reached_ms = _NO_TIME
        if time:
            field = "reachedAt" if reached_at else "updatedAt"
            found = int(time) if time.isascii() and time.isdigit() and len(time) < 16 else instant_ms(time)
            if found is None or found > self._now_ms:
                raise BadSource(
                    f"{place}: {field} must be a time of the past, as ISO 8601 with a zone or ms since 1970"
                )
            reached_ms = found
            self._sorts = self._sorts or bool(reached_at)
        self._ids[user_id] = None
        self._scores.append(score)
        self._times.append(reached_ms)

    def settle(self, digest: str) -> None:
        """Note that all rows are there."""
        if not len(self):
            raise BadSource("there are no rows to import")
        self.digest = digest
        self._listed = list(self._ids)
        self._ids = {}
        if self._sorts:
            times = self._times
            self._order = sorted(range(len(self)), key=lambda at: (times[at] == _NO_TIME, times[at]))

    def rows_from(self, first: int, count: int) -> Iterator[list[ImportRow]]:
        """Give the rows from the `first` on, `count` at a time."""
        for start in range(first, len(self), count):
            places = range(start, min(start + count, len(self)))
            yield [self._row(at if self._order is None else self._order[at]) for at in places]

    def _row(self, at: int) -> ImportRow:
        time = self._times[at]
        return ImportRow(
            self._listed[at], self._scores[at], None if time == _NO_TIME else time, self._names.get(at)
        )  # fmt: skip


def read_file(path: Path, form: str, now_ms: int) -> Source:
    """Read a file. Raises `BadSource`."""
    source = Source(now_ms)
    with path.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    try:
        if form == "csv":
            _read_csv(path, source)
        else:
            _read_ndjson(path, source)
    except UnicodeDecodeError as error:
        raise BadSource(f"{path} is not UTF-8: {error.reason}") from error
    source.settle(f"sha256:{digest}")
    return source


def _read_csv(path: Path, source: Source) -> None:
    with path.open(encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True)
        try:
            names = next(lines, [])
            at = _places(names)
            user_at, score_at = at["userId"], at["score"]
            reached_at, name_at, shown_at = at.get("reachedAt"), at.get("displayName"), at.get("updatedAt")
            for cells in lines:
                place = f"line {lines.line_num}"
                if len(cells) != len(names):
                    raise BadSource(f"{place}: it has {len(cells)} fields, the first line has {len(names)}")
                score = cells[score_at]
                if not (score.isascii() and score.isdigit() and len(score) <= 16) or (score[0] == "0" and score != "0"):
                    raise BadSource(f"{place}: score must be a whole number in plain digits, not {score[:40]!r}")
                source.add(
                    place,
                    cells[user_at],
                    int(score),
                    None if reached_at is None else cells[reached_at],
                    None if name_at is None else cells[name_at] or None,
                    "" if shown_at is None else cells[shown_at],
                )
        except csv.Error as error:
            raise BadSource(f"line {lines.line_num}: {error}") from error


def _places(names: Sequence[str]) -> dict[str, int]:
    """Find the columns by the first line."""
    at: dict[str, int] = {}
    for place, name in enumerate(names):
        if name not in _COLUMNS or name in at:
            known = ", ".join(_COLUMNS)
            what = "twice" if name in at else "unknown"
            raise BadSource(f"line 1: column {name[:40]!r} is {what}; there may be {known}")
        at[name] = place
    for name in _COLUMNS[:2]:
        if name not in at:
            raise BadSource(f"line 1: there is no column {name}; the first line names the columns")
    return at


def _read_ndjson(path: Path, source: Source) -> None:
    decode = msgspec.json.Decoder(_Line).decode
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = decode(line)
            except msgspec.ValidationError as error:
                _, sentence = shape_fault(str(error))
                raise BadSource(f"line {number}: {sentence.removeprefix(f'{BODY} ').rstrip('.')}") from error
            except msgspec.DecodeError as error:
                raise BadSource(f"line {number}: it is not valid JSON: {error}") from error
            source.add(
                f"line {number}", row.user_id, row.score, None if row.reached_at is None else str(row.reached_at),
                row.display_name, row.updated_at or "",
            )  # fmt: skip


def read_zset(url: str, key: str, *, ascending: bool, now_ms: int) -> Source:
    """Read a sorted set of a Redis server, the best first. Raises `BadSource`."""
    try:
        import redis  # noqa: PLC0415  # an extra, which most installations lack
    except ImportError as error:
        raise BadSource("an import from Redis needs its client: pip install 'scoreboard[redis]'") from error
    source, hashed = Source(now_ms), hashlib.sha256()
    try:
        client: Any = redis.Redis.from_url(url, decode_responses=False)
        with client, client.pipeline() as watched:
            watched.watch(key)
            count = watched.zcard(key)
            for first in range(0, count, REDIS_ROWS):
                last = first + REDIS_ROWS - 1
                found = watched.zrange(key, first, last, desc=not ascending, withscores=True, score_cast_func=bytes)
                for rank, (member, score) in enumerate(found, first):
                    _add_member(source, f"rank {rank}", member, score)
                    hashed.update(b"%d %b %b\n" % (len(member), member, score))
            watched.multi()
            watched.ping()
            watched.execute()
    except redis.WatchError as error:
        raise BadSource(
            f"the key {key!r} changed while it was read: stop what writes to it, and begin again"
        ) from error
    except (redis.RedisError, ValueError) as error:
        raise BadSource(f"Redis at {url.rpartition('@')[2]}: {error}") from error
    source.settle(f"sha256:{hashed.hexdigest()}")
    return source


def _add_member(source: Source, place: str, member: bytes, score: bytes) -> None:
    try:
        user_id = member.decode()
    except UnicodeDecodeError as error:
        raise BadSource(f"{place}: the member {member[:40]!r} is not UTF-8") from error
    if not score.isdigit():
        raise BadSource(f"{place}: the score of {user_id!r} must be a whole number from 0 on, not {score.decode()}")
    source.add(place, user_id, int(score), None, None, "")
