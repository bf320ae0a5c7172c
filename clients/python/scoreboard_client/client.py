"""The client for threads.

    with Scoreboard("https://board.example", token=token) as scoreboard:
        receipt = scoreboard.board("main").increment("bob", action_id="order-4711")

Threads may share a `Scoreboard`. What a call does is written in `scoreboard_client.calls`, once for this client and
that of `scoreboard_client.async_client`. So each method here is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

import httpx

from scoreboard_client import answers, calls, requests, watching
from scoreboard_client.answers import Around, Position, Ranks, Receipt, Score, Top
from scoreboard_client.batcher import LINGER_S, SIZE, Batcher
from scoreboard_client.calls import Caller
from scoreboard_client.delivery import Told
from scoreboard_client.nodes import Nodes
from scoreboard_client.outbox import Outbox
from scoreboard_client.requests import DEFAULT_BOARD, Action, checked_id
from scoreboard_client.sender import Sender
from scoreboard_client.sync_shell import Line, Token
from scoreboard_client.watch import Watch

ATTEMPT_S = 10.0
DEADLINE_S = 30.0


def caller_of(urls: str | Iterable[str], token: object, attempt_s: float, deadline_s: float) -> Caller:
    """Check what a client is made of. Raises ValueError or TypeError."""
    if token is not None and not isinstance(token, str) and not callable(token):
        raise TypeError(f"token must be a str or a callable, not {type(token).__name__}")
    return Caller(
        Nodes(urls), calls.seconds("attempt_s", attempt_s), calls.seconds("deadline_s", deadline_s), callable(token)
    )  # fmt: skip


class Scoreboard:
    """A connection pool to the nodes of one scoreboard.

    `urls` are the leader and its replicas, in any order. Nothing is sent anywhere else. `token` is a JWT, or a callable
    that gives one for each request. A call ends `deadline_s` seconds after it began, one attempt of it after
    `attempt_s`. `http` is your own client, for certificates and proxies; it is not closed here.
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        token: Token = None,
        deadline_s: float = DEADLINE_S,
        attempt_s: float = ATTEMPT_S,
        http: httpx.Client | None = None,
    ) -> None:
        self._caller = caller_of(urls, token, attempt_s, deadline_s)
        self._token = token
        self._is_own = http is None
        self._http = httpx.Client() if http is None else http

    def __enter__(self) -> Scoreboard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        if self._is_own:
            self._http.close()

    def sender(self, outbox: Outbox, *, told: Callable[[Told], None] | None = None) -> Sender:
        """Give a sender of an outbox. `told` learns of what is refused or held; without it both are logged."""
        return Sender(self._caller, self._http, self._token, outbox, told)

    def board(self, board_id: str = DEFAULT_BOARD) -> Board:
        """Give one board. Nothing is sent."""
        return Board(self._caller, self._http, self._token, board_id)


class Board:
    """One board. Made by `Scoreboard.board`.

    All methods raise `ApiError` for a final refusal, `DeadlineExceeded` if there was none in time, and ValueError or
    TypeError for what can't be sent.
    """

    def __init__(self, caller: Caller, http: httpx.Client, token: Token, board_id: str) -> None:
        self.board_id = checked_id("board_id", board_id)
        self._caller = caller
        self._http = http
        self._token = token

    def increment(
        self,
        user_id: str,
        *,
        action_id: str,
        reason: str | None = None,
        value: int | None = None,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Count an action once, however often it is sent, and give the receipt. It is on disk then.

        Raises `Conflict` if the actionId was used for something else.
        """
        action = Action(user_id, action_id, self.board_id, reason, value)
        return self._line().run(calls.increment(self._caller, action, deadline_s))

    def top(self, limit: int | None = None, *, min_position: Position | None = None) -> Top:
        """Read the first rows, 10 unless `limit` says otherwise."""
        request = requests.top(self.board_id, limit, min_position)
        return self._line().run(calls.call(self._caller, request, answers.read_top, writes=False))

    def score(self, user_id: str, *, min_position: Position | None = None) -> Score:
        """Read one user's score and rank. Raises `NotFound` for a user without a score."""
        request = requests.score(self.board_id, user_id, min_position)
        return self._line().run(calls.call(self._caller, request, answers.read_score, writes=False))

    def around(self, user_id: str, limit: int | None = None, *, min_position: Position | None = None) -> Around:
        """Read a user's row and `limit` neighbours on each side."""
        request = requests.around(self.board_id, user_id, limit, min_position)
        return self._line().run(calls.call(self._caller, request, answers.read_around, writes=False))

    def query(self, user_ids: Sequence[str], *, min_position: Position | None = None) -> Ranks:
        """Read the ranks of up to 1,000 users, on the board and among them."""
        request = requests.query(self.board_id, user_ids, min_position)
        return self._line().run(calls.call(self._caller, request, answers.read_ranks, writes=False))

    def watch(self) -> Watch:
        """Iterate the states of the board, each with its first ten rows: the one of now, then every change."""
        return Watch(self._line(), watching.watch(self._caller, self.board_id))

    def batcher(self, *, size: int = SIZE, linger_s: float = LINGER_S) -> Batcher:
        """Gather increments of many threads, and send up to `size` together.

        A batch goes out at once when it is whole, and at the latest `linger_s` seconds after its first action came.
        """
        return Batcher(self._caller, self._http, self._token, self.board_id, size, linger_s)

    def _line(self) -> Line:
        return Line(self._http, self._token)
