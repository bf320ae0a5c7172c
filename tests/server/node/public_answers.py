"""All that the public can ask about frozen boards: a class of questions for every route, and the answers as bytes.

    record = await record_of(served, questions_of(cursors))        status, headers and body by name
    again = await record_of(served, questions_of(cursors))
    assert again == record

Rules:
- `ASKED` names the handler of each route. A new route is in no class, and fails a test until somebody thinks of it.
- Questions are asked by those who are not entitled to the present: without a token, with one that may only write, of
  a caller who posted nothing, and with one that may read but does not ask for the present.
- Each answer has its HEAD, and its 304 if it has an ETag. The hot routes are asked in each lane.
- What a freeze need not hide is left out by name: the date, the instant of an answer, the position of the whole node, a
  replica's ages. And what open boards show in an answer about all boards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

import msgspec

from tests.e2e import leader as outside
from tests.server.node.frozen_boards import ABSENT, FROZEN, HIDDEN
from tests.server.node.nodes import Served
from tests.server.node.questions import Question, question
from tests.server.node.ways import WAYS, connect

Answer = tuple[int, tuple[tuple[str, str], ...], bytes]
Record = dict[str, Answer]

CALLERS = {
    "nobody": None,
    "writer": f"Bearer {outside.token('scores:write', sub='other')}",
    "reader": f"Bearer {outside.token('scores:read', sub='other')}",
}

_SHOWN = ("u05", "u13", HIDDEN, *ABSENT)

Targets = Callable[[str, str], list[str]]


def _top(board: str, _cursor: str) -> list[str]:
    path = f"/scoreboard/top?boardId={board}"
    ends = ("", "&limit=3", "&minSeq=1", "&view=public", "&period=previous", "&period=2025-12-15T13")
    return [path + end for end in ends]


def _walk(board: str, cursor: str) -> list[str]:
    path = f"/scoreboard?boardId={board}"
    ends = ("", "&limit=4", f"&limit=4&cursor={quote(cursor)}", "&limit=1&period=previous", "&limit=4&view=public")
    return [path + end for end in ends]


def _query(board: str, _cursor: str) -> list[str]:
    return [f"/scores/query#{board}"]


def _score(board: str, _cursor: str) -> list[str]:
    paths = [f"/scores/{user}?boardId={board}" for user in _SHOWN]
    return [*paths, f"/scores/u00?boardId={board}&period=previous", f"{paths[1]}&period=previous"]


def _score_by_query(board: str, _cursor: str) -> list[str]:
    return [f"/scores?userId={user}&boardId={board}" for user in ("u05", "new")]


def _around(board: str, _cursor: str) -> list[str]:
    paths = [f"/scores/{user}/around?boardId={board}" for user in _SHOWN]
    return [*paths, f"{paths[0]}&limit=2", f"/scores/u00/around?boardId={board}&period=previous"]


def _around_by_query(board: str, _cursor: str) -> list[str]:
    return [f"/scores/around?userId={user}&boardId={board}" for user in ("u05", "new")]


def _export(board: str, _cursor: str) -> list[str]:
    path = f"/boards/{board}/export?format="
    return [path + end for end in ("csv", "ndjson", "csv&view=public", "ndjson&minSeq=1", "csv&period=previous")]


def _on_board(path: str) -> Targets:
    return lambda board, _cursor: [path.format(board)]


def _once(*targets: str) -> Targets:
    return lambda board, _cursor: list(targets) if board == "cup" else []


ASKED: dict[str, tuple[str, Targets]] = {
    "top": ("GET", _top),
    "walk": ("GET", _walk),
    "query": ("POST", _query),
    "score": ("GET", _score),
    "score_by_query": ("GET", _score_by_query),
    "around": ("GET", _around),
    "around_by_query": ("GET", _around_by_query),
    "boards": ("GET", lambda board, _: ["/boards", f"/boards?boardId={board}"]),
    "board": ("GET", _on_board("/boards/{}")),
    "periods": ("GET", _on_board("/boards/{}/periods")),
    "periods_by_query": ("GET", _on_board("/boards/periods?boardId={}")),
    "export": ("GET", _export),
    "export_by_query": ("GET", _on_board("/boards/export?boardId={}&format=csv")),
    "imports": ("GET", _on_board("/boards/{}/imports")),
    "imports_by_query": ("GET", _on_board("/boards/imports?boardId={}&importId=never")),
    "import_rows": ("POST", _once("/boards/cup/imports")),
    "import_rows_by_query": ("POST", _once("/boards/imports?boardId=cup")),
    "import": ("GET", _on_board("/boards/{}/imports/never")),
    "action": ("GET", _once("/actions/a1", "/actions/a70", "/actions/never")),
    "action_by_query": ("GET", _once("/actions?actionId=a1", "/actions?actionId=a70")),
    "history": ("GET", _once("/scores/never/history", "/scores/never/history?boardId=cup")),
    "history_by_query": ("GET", _once("/scores/history?userId=never")),
    "user_data": ("GET", _once("/users/never/data")),
    "user_data_by_query": ("GET", _once("/users/data?userId=never")),
    "reverse": ("POST", _once("/reversals")),
    "reversal": ("GET", _once("/reversals/never")),
    "reversal_by_query": ("GET", _once("/reversals?reversalId=never")),
    "reviews": ("GET", _once("/reviews")),
    "review": ("GET", _once("/reviews/1-0")),
    "decide_review": ("POST", _once("/reviews/1-0")),
    "live_flag": ("GET", _once("/flags/live")),
    "put_live_flag": ("PUT", _once("/flags/live")),
    "ctftime": ("GET", lambda board, _: [f"/feeds/ctftime.json?boardId={board}{end}" for end in ("", "&view=public")]),
    "clics": ("GET", _once("/feeds/clics")),
    "clics_contests": ("GET", _once("/feeds/clics/contests")),
    "clics_contest": ("GET", _on_board("/feeds/clics/contests/{}")),
    "clics_access": ("GET", _on_board("/feeds/clics/contests/{}/access")),
    "clics_teams": ("GET", _on_board("/feeds/clics/contests/{}/teams")),
    "clics_state": ("GET", _on_board("/feeds/clics/contests/{}/state")),
    "clics_scoreboard": ("GET", _on_board("/feeds/clics/contests/{}/scoreboard")),
    "webhooks": ("GET", _once("/webhooks")),
    "enable_webhook": ("POST", _once("/webhooks/shop/enable")),
    "clics_event_feed": ("HEAD", _on_board("/feeds/clics/contests/{}/event-feed")),
    "live": ("GET", _on_board("/ws/scoreboard?boardId={}")),
    "stream": ("HEAD", _on_board("/sse/scoreboard?boardId={}")),
    "followers": ("GET", _once("/replication/followers")),
    "quorum": ("GET", _once("/quorum")),
    "step_down": ("POST", _once("/quorum/step-down")),
    "healthz": ("GET", _once("/healthz")),
    "readyz": ("GET", _once("/readyz")),
    "metrics": ("GET", _once("/metrics")),
    "openapi": ("GET", _once("/openapi.json")),
    "docs": ("GET", _once("/docs")),
    "console": ("GET", _once("/console")),
    "index": ("GET", _once("/")),
    "element": ("GET", _once("/scoreboard.js")),
    "embed": ("GET", _once("/embed")),
    "wall": ("GET", _once("/wall")),
    "qr": ("GET", _on_board("/qr.svg?boardId={}")),
    "viewers": ("GET", _on_board("/viewers?boardId={}")),
    "put_user": ("PUT", _once("/users/u00", "/users/new")),
    "put_user_by_query": ("PUT", _once("/users?userId=u00")),
    "erase_user": ("DELETE", _once("/users/u00")),
    "erase_user_by_query": ("DELETE", _once("/users?userId=u00")),
    "put_board": ("PUT", _once("/boards/cup")),
    "put_board_by_query": ("PUT", _once("/boards?boardId=cup")),
    "close_board": ("DELETE", _once("/boards/cup")),
    "close_board_by_query": ("DELETE", _once("/boards?boardId=cup")),
    "reset_board": ("POST", _once("/boards/cup/reset")),
    "reset_board_by_query": ("POST", _once("/boards/reset?boardId=cup")),
    "freeze_board": ("POST", _once("/boards/cup/freeze")),
    "freeze_board_by_query": ("POST", _once("/boards/freeze?boardId=cup")),
    "unfreeze_board": ("POST", _once("/boards/cup/unfreeze")),
    "unfreeze_board_by_query": ("POST", _once("/boards/unfreeze?boardId=cup")),
    "reveal_board": ("POST", _once("/boards/cup/reveal")),
    "reveal_board_by_query": ("POST", _once("/boards/reveal?boardId=cup")),
    "promote": ("POST", _once("/replication/promote")),
    "increment": ("POST", _once("/scores/increment")),
    "increment_batch": ("POST", _once("/scores/increment/batch")),
}
"""The method and the targets of each handler. An increment is asked for with no body: one with a body is answered with
a receipt, which goes whole to the backend that posts. A token with `scores:read` sees the whole history of a user. So
here it is that of a user without one; `tests/server/api/test_history.py` has what a freeze hides of it from others."""


def questions_of(
    cursors: dict[str, str], boards: tuple[str, ...] = FROZEN, callers: tuple[str, ...] = tuple(CALLERS)
) -> Iterator[tuple[str, Question]]:
    """Give every question about these boards, by the handler that answers it. `cursors`: one for each board.

    All callers ask about the first board, and only the first caller about the others.
    """
    for handler, (method, targets) in ASKED.items():
        for board in boards:
            for target in targets(board, cursors.get(board, "")):
                path, _, queried = target.partition("#")
                body = b'{"userIds":["u05","new","u00","u12","u01"],"boardId":"%b"}' % queried.encode()
                for who in callers if board == boards[0] else callers[:1]:
                    token = CALLERS[who]
                    name = f"{who}: {method} {target}"
                    yield handler, question(name, method, path, body if queried else b"", token=token)
                    if method == "GET" and token is None:
                        yield handler, question(f"{name} (HEAD)", "HEAD", path, token=token)


async def record_of(served: Served, asked: Iterable[tuple[str, Question]], known: Record | None = None) -> Record:
    """Ask in each lane; with the ETags of an earlier record too."""
    record: Record = {}
    other = await connect("http", served)
    for _, one in asked:
        for way in WAYS if one.is_express and one.method == "GET" else ("http",):
            client = other if way == "http" else await connect(way, served)
            await client.send(one.data)
            answer = await client.answer(to_head=one.method == "HEAD")
            record[f"{one.name} ({way})"] = _shown(one, answer.status, answer.headers, answer.body)
            if "connection" in answer.headers or client is not other:
                await client.stream.aclose()
                other = await connect("http", served) if client is other else other
            if (etag := dict((known or record)[f"{one.name} ({way})"][1]).get("etag")) is None:
                continue
            again = one.data.replace(b"\r\n\r\n", b"\r\nIf-None-Match: %b\r\n\r\n" % etag.encode(), 1)
            await other.send(again)
            answer = await other.answer(to_head=one.method == "HEAD")
            record[f"{one.name} ({way}, {etag})"] = _shown(one, answer.status, answer.headers, answer.body)
            assert answer.status == 304, one.name
    await other.stream.aclose()
    return record


_SAME = (
    (re.compile(rb'"generatedAt":"[^"]+"'), b'"generatedAt":""'),
    (re.compile(rb'"(ageMs|lagMs)":\d+'), rb'"\1":0'),
)


def _shown(asked: Question, status: int, headers: dict[str, str], body: bytes) -> Answer:
    left = {name: value for name, value in headers.items() if name not in ("date", "x-scoreboard-lag-ms")}
    if "x-scoreboard-epoch" in left:
        left["x-scoreboard-epoch"] = f'"epoch":{left["x-scoreboard-epoch"]}'  # as in a body, so that EPOCH finds it
    for figure, same in _SAME:
        body = figure.sub(same, body)
    path = asked.target.partition("?")[0]
    of_the_log = path.endswith(("/history", "/data"))
    if path in ("/readyz", "/metrics") or asked.target == "/boards" or of_the_log:
        left.pop("content-length", None)  # the rest of the answer is of the whole node
    if (asked.target == "/readyz" or of_the_log) and body:
        body = re.sub(rb'"seq":\d+', b'"seq":0', body)
    elif asked.target == "/boards" and status == 200 and body:
        listed = msgspec.json.decode(body)["boards"]
        body = msgspec.json.encode([each for each in listed if each["boardId"] in FROZEN])
    elif asked.target == "/metrics" and body:
        names = tuple(f'"{board}"'.encode() for board in FROZEN)
        body = b"\n".join(line for line in sorted(body.splitlines()) if any(name in line for name in names))
    return status, tuple(sorted(left.items())), body


CURSOR = (r'"nextCursor":"[^"]+"', '"nextCursor":""')
"""It is signed with a key of the process."""

EPOCH = (r'(W/"|"epoch":)\d+', r"\g<1>0")
HISTORY = (r'(W/"\d+-|"history":")[0-9a-f]+', r"\g<1>0")


def without(record: Record, *figures: tuple[str, str]) -> Record:
    """Make figures the same in names, headers and bodies."""
    same: Record = {}
    for name, (status, headers, body) in record.items():
        texts = [name, *(value for _, value in headers), body.decode()]
        for pattern, put in figures:
            texts = [re.sub(pattern, put, text) for text in texts]
        names = [header for header, _ in headers]
        same[texts[0]] = status, tuple(zip(names, texts[1:-1], strict=True)), texts[-1].encode()
    return same
