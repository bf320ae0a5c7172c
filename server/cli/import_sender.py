"""The rows of an import on their way to a running leader, piece by piece over HTTP.

    with Leader(url, token, token_file, tell=say) as leader:
        ascending = leader.is_ascending("main")
        receipt = leader.send(plan, rows_from, progress)

Rules:
- The leader says how far the import is, and the next piece begins there: after a kill, and after a promotion too, when
  the new leader may lack the last rows.
- A piece whose answer was lost is sent again as it is. The leader passes over the rows that it has.
- A leader that is busy says how long to wait. One that does not answer is asked again after a random wait whose bound
  doubles. PATIENCE_SECONDS without progress end the command. So does any other refusal, at once.
- A replica redirects to the leader whose address its operator chose. It has the token already, so the sender follows.
- The token's file is read anew for each piece: a long import outlives a token.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from engine.commands import ImportReceipt, ImportRow
from server import bounds
from server.api.import_forms import ImportBody, ImportedAnswer, ImportRowBody
from server.cli.support import BadUsage, CommandRefused, read_token
from server.http.messages import MSGPACK
from server.settings.values import check_node_url
from snapshots.importing import ImportPlan

ANSWER_SECONDS_MAX = 60.0
RETRY_SECONDS_MIN = 0.5
RETRY_SECONDS_MAX = 15.0
PATIENCE_SECONDS = 300.0
"""Without progress. A leader with a long log takes minutes to start."""

REDIRECTS_MAX = 3
"""From a replica to its leader: one, and a promotion or two meanwhile."""

_BUSY = (429, 503)
_pack = msgspec.msgpack.Encoder().encode


class _Answer(msgspec.Struct):
    """An answer: its status, its body if that is an object, and how long to wait."""

    status: int
    body: dict[str, Any]
    location: str
    retry_after_s: float | None

    @property
    def message(self) -> str:
        error = self.body.get("error")
        return str(error.get("message", "")) if isinstance(error, dict) else ""

    @property
    def details(self) -> dict[str, Any]:
        error = self.body.get("error")
        details = error.get("details") if isinstance(error, dict) else None
        return details if isinstance(details, dict) else {}


class Leader:
    """A running leader. `wait` and `clock_s` are for tests."""

    def __init__(
        self,
        url: str,
        token: str,
        token_file: Path | None,
        *,
        tell: Callable[[str], None],
        wait: Callable[[float], None] = time.sleep,
        clock_s: Callable[[], float] = time.monotonic,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raise `BadUsage` for what is no address, and for a file without a token."""
        try:
            check_node_url(url or "-")
        except ValueError as error:
            raise BadUsage(f"--url: {error}") from error
        self._url = url.rstrip("/")
        self._token, self._file = read_token(token_file) or token, token_file
        self._tell, self._wait, self._clock_s = tell, wait, clock_s
        trusted = ssl.create_default_context()  # the certificates that this machine trusts, as for a replica's link
        self._client = httpx.Client(timeout=ANSWER_SECONDS_MAX, verify=trusted, trust_env=False, transport=transport)

    def __enter__(self) -> Leader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def is_ascending(self, board_id: str) -> bool:
        """Ask whether the least score is the best on a board. Raises `CommandRefused`."""
        try:
            answer = self._ask("GET", f"/boards?{urlencode({'boardId': board_id})}")
        except httpx.HTTPError as error:
            raise CommandRefused(f"{self._url} does not answer: {error or type(error).__name__}") from error
        if answer.status != httpx.codes.OK:
            raise self._refused(answer)
        return bool(answer.body.get("order") == "ascending")

    def send(
        self,
        plan: ImportPlan,
        rows_from: Callable[[int, int], Iterator[Sequence[ImportRow]]],
        progress: Callable[[int, int], None],
    ) -> ImportReceipt:
        """Send what is left of an import; give the receipt of all of it. Raises `CommandRefused`.

        `rows_from(first, count)` gives the rows from the `first` on, `count` at a time.
        """
        done, applied = 0, 0
        while True:
            rows = next(rows_from(done, bounds.IMPORT_PIECE_ROWS_MAX))
            answer = self._piece(plan, done, rows)
            if isinstance(answer, int):
                self._tell(f"The leader has {answer} of the rows: going on there")
                done = answer
                continue
            done, applied = answer.rows_done, applied + answer.applied
            progress(done, plan.total)
            if answer.finished:
                return ImportReceipt(
                    plan.import_id, plan.board_id, plan.total, done, applied, answer.epoch, answer.seq
                )  # fmt: skip

    def _piece(self, plan: ImportPlan, first: int, rows: Sequence[ImportRow]) -> ImportedAnswer | int:
        """Send a piece until it is answered. A number: the leader has only these rows."""
        sent = [ImportRowBody(row.user_id, row.score, row.reached_ms, row.display_name) for row in rows]
        body = _pack(ImportBody(plan.import_id, plan.digest, plan.total, sent, first, plan.merge))
        target = f"/boards/imports?{urlencode({'boardId': plan.board_id})}"
        since_s, failures, redirects = self._clock_s(), 0, 0
        while True:
            wait_s: float | None = None
            try:
                answer = self._ask("POST", target, body)
            except httpx.HTTPError as error:
                trouble = f"{self._url} does not answer: {error or type(error).__name__}"
            else:
                if answer.status == httpx.codes.OK:
                    return self._receipt(answer, plan)
                if answer.status == httpx.codes.TEMPORARY_REDIRECT and redirects < REDIRECTS_MAX:
                    redirects += 1
                    self._follow(answer, target)
                    continue
                has = answer.details.get("rowsDone")
                if answer.details.get("field") == "firstRow" and isinstance(has, int) and 0 <= has < first:
                    return has
                if answer.status not in _BUSY:
                    raise self._refused(answer)
                trouble = f"{self._url} is busy: {answer.message or answer.status}"
                wait_s = answer.retry_after_s
            if wait_s is None:
                bound_s = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2.0 ** min(failures, 10))
                wait_s = random.random() * bound_s  # noqa: S311  # spreads load, guards nothing
            if self._clock_s() + wait_s - since_s > PATIENCE_SECONDS:
                raise CommandRefused(f"{trouble}. {first} of {plan.total} rows are there; the same command goes on")
            failures += 1
            self._tell(f"{trouble}; next try in {wait_s:.1f} s")
            self._wait(wait_s)

    def _ask(self, method: str, target: str, body: bytes = b"") -> _Answer:
        with suppress(BadUsage):  # the file is being replaced: the last token counts
            self._token = read_token(self._file, tell=False) or self._token
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        if body:
            headers["content-type"] = MSGPACK
        answer = self._client.request(method, self._url + target, headers=headers, content=body)
        packed = answer.headers.get("content-type", "") == MSGPACK
        try:
            found = (msgspec.msgpack if packed else msgspec.json).decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = None
        after = answer.headers.get("retry-after", "")
        return _Answer(
            answer.status_code, found if isinstance(found, dict) else {}, answer.headers.get("location", ""),
            float(after) if after.isascii() and after.isdigit() else None,
        )  # fmt: skip

    def _follow(self, answer: _Answer, target: str) -> None:
        leader = answer.location.removesuffix(target)
        try:
            check_node_url(leader if leader != answer.location else "-")
        except ValueError as error:
            raise CommandRefused(f"{self._url} redirects to {answer.location!r}, which is no leader's") from error
        self._tell(f"{self._url} is a replica; the rows go to its leader, {leader}")
        self._url = leader

    def _receipt(self, answer: _Answer, plan: ImportPlan) -> ImportedAnswer:
        try:
            receipt = msgspec.convert(answer.body, ImportedAnswer)
        except msgspec.ValidationError:
            receipt = None
        if receipt is None or (receipt.import_id, receipt.rows) != (plan.import_id, plan.total):
            raise CommandRefused(f"{self._url} gave an answer that is not a scoreboard's")
        return receipt

    def _refused(self, answer: _Answer) -> CommandRefused:
        leader = answer.details.get("leader")
        where = f" Its leader is {leader}." if leader else ""
        what = answer.message or "no reason given"
        return CommandRefused(f"{self._url} refused with status {answer.status}: {what}{where}")
