"""Rows on their way to a running leader: in pieces, after a kill, over busy and lost connections, to another leader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from engine.commands import ImportReceipt, ImportRow
from server import bounds
from server.cli import import_sender
from server.cli import imports as command
from server.cli.import_sender import PATIENCE_SECONDS, Leader
from server.cli.main import main
from server.cli.support import BadUsage, CommandRefused
from snapshots.importing import ImportPlan

URL = "http://leader.example:8080"
OTHER = "http://other.example:8080/scores"
SIZE = bounds.IMPORT_PIECE_ROWS_MAX
TOTAL = 2 * SIZE + 500
PLAN = ImportPlan("a/b", "season-1", TOTAL, "sha256:00", False, "ops")
ROWS = [ImportRow(f"user-{number}", number, 1_700_000_000_000 if number % 2 else None) for number in range(TOTAL)]

Fault = Callable[["Backend"], httpx.Response | None]


def rows_from(first: int, count: int) -> Iterator[Sequence[ImportRow]]:
    """Give the rows of the source."""
    for start in range(first, TOTAL, count):
        yield ROWS[start : start + count]


def error(status: int, message: str = "no", headers: dict[str, str] | None = None, **details: Any) -> httpx.Response:
    """A refusal as the API gives it."""
    body = {"error": {"code": "X", "message": message, "details": details}}
    return httpx.Response(status, json=body, headers=headers)


class Backend:
    """What a leader does with rows. `faults` come first, one for each piece: a response of their own, or None."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.rows: list[dict[str, Any]] = []
        self.asked: list[httpx.Request] = []
        self._faults = list(faults)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.asked.append(request)
        if request.method == "GET":
            return httpx.Response(200, json={"boardId": "a/b", "order": "ascending"})
        assert request.url.params["boardId"] == "a/b"
        if self._faults and (response := self._faults.pop(0)(self)) is not None:
            return response
        return self.take(msgspec.msgpack.decode(request.content))

    def take(self, body: dict[str, Any]) -> httpx.Response:
        """Take the rows of a piece, as the engine does."""
        assert 1 <= len(body["rows"]) <= SIZE
        assert (body["importId"], body["digest"], body["total"], body["merge"]) == (
            "season-1", "sha256:00", TOTAL, False,
        )  # fmt: skip
        if body["firstRow"] > len(self.rows):
            return error(409, "a gap", field="firstRow", rowsDone=len(self.rows))
        new = body["rows"][len(self.rows) - body["firstRow"] :]
        self.rows += new
        answer = {
            "importId": "season-1", "boardId": "a/b", "rows": TOTAL, "rowsDone": len(self.rows), "applied": len(new),
            "finished": len(self.rows) == TOTAL, "epoch": 1, "seq": len(self.rows) + 1,
        }  # fmt: skip
        return httpx.Response(
            200, content=msgspec.msgpack.encode(answer), headers={"content-type": "application/msgpack"}
        )


class Sender:
    """Sends to a backend; `waits` and `told` are what it did and said meanwhile, `moves` its progress."""

    def __init__(self, backend: Callable[[httpx.Request], httpx.Response], token_file: Path | None = None) -> None:
        self.waits: list[float] = []
        self.told: list[str] = []
        self.moves: list[tuple[int, int]] = []
        self.now_s = 0.0
        self.leader = Leader(
            URL, "secret", token_file, tell=self.told.append, wait=self._wait, clock_s=lambda: self.now_s,
            transport=httpx.MockTransport(backend),
        )  # fmt: skip

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds

    def send(self) -> ImportReceipt:
        """Send all rows."""
        return self.leader.send(PLAN, rows_from, lambda done, total: self.moves.append((done, total)))


def whole(backend: Backend) -> bool:
    """Whether a backend has each row once, in order, as it was."""
    found = [ImportRow(row["userId"], row["score"], row["reachedAt"], row["displayName"]) for row in backend.rows]
    return found == ROWS


def test_rows_go_in_pieces_and_come_whole() -> None:
    """The receipt is of all of it, and the progress moves with each piece."""
    backend = Backend()
    sender = Sender(backend)
    assert sender.leader.is_ascending("a/b") is True
    assert sender.send() == ImportReceipt("season-1", "a/b", TOTAL, TOTAL, TOTAL, 1, TOTAL + 1)
    assert whole(backend)
    assert sender.moves == [(SIZE, TOTAL), (2 * SIZE, TOTAL), (TOTAL, TOTAL)]
    assert {request.headers["authorization"] for request in backend.asked} == {"Bearer secret"}
    assert (sender.waits, sender.told) == ([], [])


@pytest.mark.parametrize("there", [1, SIZE, SIZE + 7, TOTAL])
def test_an_import_goes_on_where_it_was(there: int) -> None:
    """After one piece that tells where that is."""
    backend = Backend()
    sent = [{"userId": r.user_id, "score": r.score, "reachedAt": r.reached_ms, "displayName": None} for r in ROWS]
    backend.rows = sent[:there]
    receipt = Sender(backend).send()
    assert (receipt.applied, receipt.rows_done) == (TOTAL - there, TOTAL)
    assert whole(backend)


def test_a_piece_whose_answer_was_lost_is_sent_again() -> None:
    """Whether it was done or not: no row comes twice, and none is missing."""

    def lost(backend: Backend) -> httpx.Response | None:
        backend.take(msgspec.msgpack.decode(backend.asked[-1].content))
        raise httpx.ReadError("reset")

    def refused(_backend: Backend) -> httpx.Response | None:
        raise httpx.ConnectError("refused")

    backend = Backend([lost, refused, lost, refused, lost])
    sender = Sender(backend)
    assert sender.send().rows_done == TOTAL
    assert whole(backend)
    assert len(sender.waits) == 5
    assert all(0 <= wait_s <= import_sender.RETRY_SECONDS_MAX for wait_s in sender.waits)
    assert "does not answer: reset; next try in" in sender.told[0]


def test_a_busy_leader_says_how_long_to_wait() -> None:
    """429 and 503; without Retry-After the wait is random."""
    backend = Backend(
        [
            lambda _: error(503, "The disk is full.", {"retry-after": "5"}),
            lambda _: error(429, "Too many.", {"retry-after": "2"}),
            lambda _: httpx.Response(503, text="<html>a proxy"),
        ]
    )
    sender = Sender(backend)
    assert sender.send().rows_done == TOTAL
    assert sender.waits[:2] == [5.0, 2.0]
    assert 0 <= sender.waits[2] <= 4 * import_sender.RETRY_SECONDS_MIN
    assert sender.told[0] == f"{URL} is busy: The disk is full.; next try in 5.0 s"
    assert whole(backend)


def test_patience_has_an_end() -> None:
    """Counted from the last progress; the sentence says how far it came."""
    down: list[Fault] = [lambda _: error(503, "Down.", {"retry-after": "30"})] * 1_000
    backend = Backend([lambda _: None, *down])
    sender = Sender(backend)
    with pytest.raises(CommandRefused, match=f"Down.* {SIZE} of {TOTAL} rows are there; the same command goes on"):
        sender.send()
    assert sum(sender.waits) == PATIENCE_SECONDS


def test_a_new_leader_may_lack_the_last_rows() -> None:
    """After a promotion the import goes on where the new leader is."""

    def promoted(backend: Backend) -> httpx.Response | None:
        del backend.rows[300:]
        return None

    backend = Backend([lambda _: None, promoted])
    sender = Sender(backend)
    assert sender.send().rows_done == TOTAL
    assert whole(backend)
    assert sender.told == ["The leader has 300 of the rows: going on there"]


def test_a_replica_redirects_to_its_leader() -> None:
    """The rows go there from then on. What redirects in circles, or to no leader, ends the command."""
    backend = Backend()

    def replica(request: httpx.Request) -> httpx.Response:
        if request.url.host == "other.example":
            assert request.url.path == "/scores/boards/imports"
            return backend(request)
        return error(307, "a replica", {"location": f"{OTHER}{request.url.raw_path.decode()}"})

    sender = Sender(replica)
    assert sender.send().rows_done == TOTAL
    assert whole(backend)
    assert sender.told == [f"{URL} is a replica; the rows go to its leader, {OTHER}"]
    round_about = Sender(lambda request: error(307, "a replica", {"location": str(request.url)}))
    with pytest.raises(CommandRefused, match="status 307: a replica"):
        round_about.send()
    for location in ("/elsewhere", "ftp://x/boards/imports?boardId=a%2Fb", ""):
        astray = Sender(lambda _, location=location: error(307, "a replica", {"location": location}))  # type: ignore[misc]
        with pytest.raises(CommandRefused, match="no leader's"):
            astray.send()


@pytest.mark.parametrize(("status", "details", "says"), [
    (400, {"field": "rows[3].score"}, "status 400: no$"),
    (401, {}, "status 401: no$"),
    (409, {"field": "merge"}, "status 409: no$"),
    (409, {"field": "firstRow", "rowsDone": 10**9}, "status 409"),
    (421, {"leader": "http://there"}, "Its leader is http://there"),
    (500, {}, "status 500"),
])  # fmt: skip
def test_another_refusal_ends_it_at_once(status: int, details: dict[str, Any], says: str) -> None:
    """With the leader's own words."""
    sender = Sender(Backend([lambda _: error(status, **details)]))
    with pytest.raises(CommandRefused, match=says):
        sender.send()
    assert sender.waits == []


def test_an_answer_that_is_none_ends_it() -> None:
    """Another program listens there, or the answer is about another import."""
    for body in ({"hello": "world"}, {"importId": "x", "boardId": "a/b", "rows": 1, "rowsDone": 1, "applied": 1,
                                      "finished": True, "epoch": 1, "seq": 1}):  # fmt: skip
        with pytest.raises(CommandRefused, match="not a scoreboard's"):
            Sender(Backend([lambda _, body=body: httpx.Response(200, json=body)])).send()  # type: ignore[misc]


def test_the_token_is_read_anew_for_each_piece(tmp_path: Path) -> None:
    """A file that is being replaced, and is empty for a moment, changes nothing."""
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)

    def replace(text: str) -> Fault:
        def fault(_backend: Backend) -> httpx.Response | None:
            file.write_text(text)
            return None

        return fault

    backend = Backend([replace(""), replace("second")])
    Sender(backend, file).send()
    assert [request.headers["authorization"] for request in backend.asked] == [
        "Bearer first", "Bearer first", "Bearer second",
    ]  # fmt: skip


# The command


def run(monkeypatch: pytest.MonkeyPatch, backend: Callable[[httpx.Request], httpx.Response], *arguments: str) -> Result:
    """Run `scoreboard import --url` against a backend."""

    def leader(*given: Any, **more: Any) -> Leader:
        return Leader(*given, **more, transport=httpx.MockTransport(backend))

    monkeypatch.setattr(command, "Leader", leader)
    return CliRunner().invoke(main, ["import", "--board", "a/b", *arguments])


def test_the_command_checks_the_whole_file_before_it_sends_a_row(tmp_path: Path, monkeypatch: Any) -> None:
    """A bad line at the end sends nothing; a good file is named by its content, as for a directory."""
    file = tmp_path / "scores.csv"
    file.write_text("userId,score\nann,5\nben,x\n")
    backend = Backend()
    result = run(monkeypatch, backend, str(file), "--url", URL, "--token", "t")
    assert (result.exit_code, "line 3: score" in result.stderr) == (1, True)
    assert [request.method for request in backend.asked] == ["GET"]
    file.write_text("userId,score\nann,5\n")

    def one(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return backend(request)
        body = msgspec.msgpack.decode(request.content)
        assert body["importId"] == command.name_of("a/b", body["digest"])
        answer = {"importId": body["importId"], "boardId": "a/b", "rows": 1, "rowsDone": 1, "applied": 1,
                  "finished": True, "epoch": 1, "seq": 3}  # fmt: skip
        return httpx.Response(200, json=answer)

    result = run(monkeypatch, one, str(file), "--url", URL, "--token", "t", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rowsDone"] == 1


def test_usage(tmp_path: Path, monkeypatch: Any) -> None:
    """Options of the other way are refused, not passed over; so are an unknown board and no address."""
    file = tmp_path / "a.csv"
    file.write_text("userId,score\nann,5\n")
    for arguments, says in (
        (("--url", URL, "--data-dir", str(tmp_path)), "--data-dir goes with a directory"),
        (("--url", URL, "--config", str(file)), "--config goes with a directory"),
        (("--data-dir", str(tmp_path), "--token", "t"), "--token goes with --url"),
        (("--data-dir", str(tmp_path), "--token-file", str(file)), "--token-file goes with --url"),
        (("--url", "leader:8080"), "--url: must be http"),
        (("--url", ""), "--url: must be http"),
    ):
        result = run(monkeypatch, Backend(), str(file), *arguments)
        assert (result.exit_code, says in result.stderr) == (2, True), (arguments, result.output)
    result = run(monkeypatch, lambda _: error(404, "There is no such board."), str(file), "--url", URL)
    assert (result.exit_code, "There is no such board" in result.stderr) == (1, True)

    def down(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    result = run(monkeypatch, down, str(file), "--url", URL)
    assert (result.exit_code, "does not answer: refused" in result.stderr) == (1, True)
    with pytest.raises(BadUsage, match="--url"):
        Leader("x", "", None, tell=print)
