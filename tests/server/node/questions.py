"""Requests for every route, the good ones and those that are refused, as bytes; and their answers in comparable form.

Rules:
- Every request is whole: its sender decides nothing. The ids of requests and of actions are fixed.
- A figure that depends on when it is asked for, such as an age in ms, is made the same in each answer. Nothing else is.
"""

from __future__ import annotations

import re
from functools import cache

import msgspec

from server.http.messages import joined_headers, path_of
from tests.e2e import leader as outside
from tests.server.lanes.support import Answer, Client

BATCH_PATH = "/scores/increment/batch"
INCREMENT_PATH = "/scores/increment"


class Question(msgspec.Struct, frozen=True):
    """A request, and a name for it. `target` is its request target."""

    name: str
    method: str
    target: str
    data: bytes

    @property
    def is_express(self) -> bool:
        """Whether the express lane takes it."""
        return (self.method, path_of(self.target)) in (
            ("POST", INCREMENT_PATH),
            ("POST", BATCH_PATH),
            ("GET", "/scoreboard/top"),
        )


class Asker(Client):
    """A client that takes a header which came twice for one with both values (RFC 9110, section 5.3)."""

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer."""
        head = await self._until(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = joined_headers(
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        return Answer(int(status.split(" ")[1]), headers, b"" if to_head else await self._body(headers))


@cache
def bearer(*scopes: str, user: str | None = None, seconds: float = 3600, secret: str = outside.SECRET) -> str:
    """The value of an Authorization header with a good token, or one that is nearly good."""
    return f"Bearer {outside.token(*scopes, user=user, seconds=seconds, secret=secret)}"


def question(
    name: str, method: str, target: str, body: bytes = b"", *, token: str | None = None,
    request_id: str | None = "same", **headers: str,
) -> Question:  # fmt: skip
    """Write a request. In the names of `headers` an underscore stands for a hyphen."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x"]
    if request_id is not None:
        lines.append(f"X-Request-Id: {request_id}")
    if token is not None:
        lines.append(f"Authorization: {token}")
    lines += [f"{header.replace('_', '-')}: {value}" for header, value in headers.items()]
    if (body or method in ("POST", "PUT")) and "Content_Length" not in headers and "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return Question(name, method, target, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def increment(user: str = "ann", action: str | None = "a1", **more: object) -> bytes:
    """The body of an increment."""
    return msgspec.json.encode({"userId": user, "actionId": action, **more})


def chunked(body: bytes) -> bytes:
    """A body in chunks of seven bytes."""
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def increments() -> list[Question]:
    """POST /scores/increment."""
    write, read = bearer("scores:write"), bearer("scores:read")
    strange = write[:-4] + ("AAAA" if write[-4:] != "AAAA" else "BBBB")
    bodies: list[tuple[str, bytes]] = [
        ("good", increment()),
        ("duplicate", increment()),
        ("conflict", increment("ben")),
        ("the board by name", increment("ann", "w1", boardId="main")),
        ("unknown board", increment("ann", "a2", boardId="nowhere")),
        ("unknown reason", increment("ann", "a2", reason="NOTHING")),
        ("text that is not ASCII", increment("zoë \U0001f600", "z1")),
        ("empty id", increment("", "a2")),
        ("long id", increment("x" * 129, "a2")),
        ("line feed in an id", increment("a\nb", "a2")),
        ("missing field", msgspec.json.encode({"userId": "ann"})),
        ("unknown field", increment("ann", "a2", delta=5)),
        ("wrong type", msgspec.json.encode({"userId": 5, "actionId": "a2"})),
        ("half of JSON", b"{"),
        ("no body", b""),
        ("not UTF-8", b"\xff"),
        ("deep", b"[" * 5_000),
        ("null", increment("ann", "a4", reason=None, boardId=None)),
        ("null for an id", increment("ann", None)),
        ("byte order mark", b"\xef\xbb\xbf" + increment("ann", "a5")),
    ]
    questions = [question(name, "POST", INCREMENT_PATH, body, token=write) for name, body in bodies]
    body = increment("ann", "a3")
    questions += [
        question("no token", "POST", INCREMENT_PATH, body),
        question("no bearer", "POST", INCREMENT_PATH, body, token="Basic YTpi"),
        question("malformed token", "POST", INCREMENT_PATH, body, token="Bearer nonsense"),
        question("wrong signature", "POST", INCREMENT_PATH, body, token=strange),
        question("expired", "POST", INCREMENT_PATH, body, token=bearer("scores:write", seconds=-7200)),
        question("wrong scope", "POST", INCREMENT_PATH, body, token=read),
        question("bad body and wrong scope", "POST", INCREMENT_PATH, b"{", token=read),
        question("another user's", "POST", INCREMENT_PATH, body, token=bearer("scores:write", user="ben")),
        question("own user's", "POST", INCREMENT_PATH, body, token=bearer("scores:write", user="ann")),
        question("content type", "POST", INCREMENT_PATH, body, token=write, Content_Type="text/csv"),
        question("content encoding", "POST", INCREMENT_PATH, body, token=write, Content_Encoding="gzip"),
        question("query", "POST", f"{INCREMENT_PATH}?x=1", increment("ann", "q1"), token=write),
        question("any value", "POST", f"{INCREMENT_PATH}?_=1", increment("ann", "q2"), token=write),
        question("slash", "POST", f"{INCREMENT_PATH}/", increment("ann", "q3"), token=write),
        question("two slashes", "POST", f"{INCREMENT_PATH}//", increment("ann", "q4"), token=write),
        question("parameters", "POST", INCREMENT_PATH, body, token=write, Content_Type="application/json; a=b"),
        question("chunked", "POST", INCREMENT_PATH, chunked(increment("ann", "c1")), token=write,
                 Transfer_Encoding="chunked"),
        question("too long", "POST", INCREMENT_PATH, token=write, Content_Length="99999999"),
        question("no request id", "POST", INCREMENT_PATH, increment("ann", "n1"), token=write, request_id=None),
        question("last", "POST", INCREMENT_PATH, increment("ann", "l1"), token=write, Connection="close"),
        question("GET", "GET", INCREMENT_PATH, token=write),
        question("OPTIONS", "OPTIONS", INCREMENT_PATH, Access_Control_Request_Method="POST"),
    ]  # fmt: skip
    return questions


def batches() -> list[Question]:
    """POST /scores/increment/batch, and what a limit refuses."""
    write, packed = bearer("scores:write"), "application/msgpack"
    good = [{"userId": f"user {n}", "actionId": f"b{n}"} for n in range(5)]
    mixed = [
        good[0],
        {"userId": ""},
        5,
        {"userId": "ann", "actionId": "b1"},
        {"userId": "ann", "actionId": "m", "x": 1},
    ]
    greedy = [{"userId": "greedy", "actionId": f"g{n}"} for n in range(100)]
    long = [{"userId": "u", "actionId": f"l{n}"} for n in range(1_001)]
    json_bodies = [
        ("good", good),
        ("mixed", mixed),
        ("empty", []),
        ("no list", {}),
        ("too long", long),
        ("greedy", greedy),
        ("greedy again", greedy),
        ("nulls", [{**each, "reason": None} for each in good]),
    ]
    questions = [
        question(f"batch: {name}", "POST", BATCH_PATH, msgspec.json.encode(body), token=write)
        for name, body in json_bodies
    ]
    questions += [
        question("rate limit", "POST", INCREMENT_PATH, increment("greedy", "g99"), token=write),
        question("bad body over the limit", "POST", INCREMENT_PATH, increment("greedy", "g99", x=1), token=write),
        question("batch: half of JSON", "POST", BATCH_PATH, b"[", token=write),
        question("batch: no token", "POST", BATCH_PATH, msgspec.json.encode(good)),
        question("batch: wrong scope", "POST", BATCH_PATH, b"[]", token=bearer("scores:read")),
        question("batch: own user's", "POST", BATCH_PATH, msgspec.json.encode(good),
                 token=bearer("scores:write", user="ann")),
        question("batch: msgpack", "POST", BATCH_PATH, msgspec.msgpack.encode(good), token=write, Content_Type=packed),
        question("batch: mixed msgpack", "POST", BATCH_PATH, msgspec.msgpack.encode(mixed), token=write,
                 Content_Type=packed),
        question("batch: no msgpack", "POST", BATCH_PATH, b"\xc1", token=write, Content_Type=packed),
        question("batch: content type", "POST", BATCH_PATH, b"[]", token=write, Content_Type="text/csv"),
    ]  # fmt: skip
    return questions


FEEDS = (
    "/feeds/ctftime.json", "/feeds/ctftime.json?boardId=nowhere", "/feeds/clics", "/feeds/clics/",
    "/feeds/clics/contests", *(f"/feeds/clics/contests/main{end}" for end in ("", "/access", "/teams", "/state")),
    "/feeds/clics/contests/main/scoreboard", "/feeds/clics/contests/main/scoreboard?view=live",
    "/feeds/clics/contests/nowhere/teams",
)  # fmt: skip
"""Reads in formats of the field."""

EVENT_FEED = "/feeds/clics/contests/main/event-feed"


def reads() -> list[Question]:
    """GET /scoreboard/top and the other routes that read."""
    top, read = "/scoreboard/top", bearer("scores:read")
    targets = [
        top, f"{top}?limit=3", f"{top}?limit=51", f"{top}?limit=x&boardId=main", f"{top}?boardId=main",
        f"{top}?boardId=nowhere", f"{top}?boardId=%ff", f"{top}?minSeq=1", f"{top}?minSeq=99999", f"{top}?minSeq=-1",
        f"{top}?%6dinSeq=99999", f"{top}?%76iew=live", f"{top}?%70eriod=previous",
        f"{top}?minEpoch=1", f"{top}?minEpoch=9", f"{top}?limit=3&limit=4", "/scores/ann",
        "/scores/ann?boardId=nowhere", "/scores/ann?minSeq=99999", "/scores/nobody", "/scores/%6", "/scores/ann/around",
        "/scores/ann/around?limit=26", "/scores/ann/around?limit=1", "/scores/nobody/around", "/nowhere",
        "/actions/first%20of%20ann", f"{top}?offset=5", f"{top}?_=5", "/scores?userId=ann", "/scores",
        "/scores?userId=x/y", "/scores/around?userId=ann", "/scores/around", "/actions?actionId=first%20of%20ann",
        "/scores/ann/", "/healthz/", "/scoreboard", "/scoreboard?limit=1", "/scoreboard?cursor=x",
        "/scoreboard?cursor=", "/scoreboard?boardId=nowhere", "/scores/query",
        *FEEDS,
    ]  # fmt: skip
    questions = [question(target, "GET", target) for target in targets]
    questions += [
        question("top with a token", "GET", top, token=read),
        question("top with a bad token", "GET", top, token="Bearer nonsense"),
        question("top of any tag", "GET", top, If_None_Match="*"),
        question("top of another tag", "GET", top, If_None_Match='"other"'),
        question("top for a page", "GET", top, Origin="https://example.org"),
        question("top without an id", "GET", top, request_id=None),
        question("HEAD", "HEAD", top),
        question("HEAD of a score", "HEAD", "/scores/ann"),
        question("OPTIONS of top", "OPTIONS", top, Access_Control_Request_Method="GET", Origin="https://example.org"),
        question("PUT of top", "PUT", top, b"{}"),
        question("a receipt", "GET", "/actions/first%20of%20ann", token=read),
        question("a query", "POST", "/scores/query", b'{"userIds":["ann","nobody"]}'),
        question("a query of nobody", "POST", "/scores/query", b'{"userIds":[]}'),
        question("OPTIONS of a query", "OPTIONS", "/scores/query", Access_Control_Request_Method="POST"),
        question("a receipt by query", "GET", "/actions?actionId=first%20of%20ann", token=read),
        question(
            "OPTIONS with headers",
            "OPTIONS",
            top,
            Access_Control_Request_Method="GET",
            Access_Control_Request_Headers="traceparent,baggage",
            Origin="https://example.org",
        ),
        *corrections(),
        question("no receipt", "GET", "/actions/never", token=read),
        question("a receipt for no scope", "GET", "/actions/never", token=bearer("users:write")),
    ]
    return questions


def corrections() -> list[Question]:
    """The log of users, referees, imports. Who is asked about has no events: these have times."""
    read, referee, judge = bearer("scores:read"), bearer("scores:correct"), bearer("scores:review")
    about = ["/scores/no/history", "/scores/history?userId=no", "/users/no/data", "/users/data?userId=no",
             "/reversals/never", "/reversals?reversalId=never"]  # fmt: skip
    imports = ["/boards/main/imports", "/boards/imports?boardId=main&importId=no", "/boards/main/imports/no"]
    rows = b'{"importId": "i1", "digest": "d", "total": 1, "rows": [{"userId": "no", "score": 1}]}'
    never = b'{"reversalId": "r1", "reason": "x", "actionIds": ["never"]}'
    return [
        *[question(target, "GET", target, token=read) for target in about],
        question("a reversal of nothing", "POST", "/reversals", never, token=referee),
        question("a reversal without the scope", "POST", "/reversals", never, token=read),
        question("reviews", "GET", "/reviews", token=judge),
        question("no review", "GET", "/reviews/1-0", token=judge),
        question("a decision of no review", "POST", "/reviews/1-0", b'{"decision": "accept"}', token=judge),
        *[question(target, "GET", target, token=bearer("admin")) for target in imports],
        question("an import to no board", "POST", "/boards/no/imports", rows, token=bearer("admin")),
        question("an import without the scope", "POST", "/boards/no/imports", rows, token=read),
        *flags(),
        question("an import without rows", "POST", "/boards/imports?boardId=no", b"{}", token=bearer("admin")),
    ]


def flags() -> list[Question]:
    """The flag of the live channel. What is asked for is so already: an event would have a time."""
    admin = bearer("admin")
    return [
        question("the flag", "GET", "/flags/live", token=admin),
        question("the flag as it is", "PUT", "/flags/live", b'{"enabled": true}', token=admin),
        question(
            "the flag without the scope", "PUT", "/flags/live", b'{"enabled": false}', token=bearer("scores:read")
        ),
        question("the flag without a word", "PUT", "/flags/live", b"{}", token=admin),
    ]


def odd_ones() -> list[Question]:
    """What is written in an unusual way, or nearly right."""
    top, write, body = "/scoreboard/top", bearer("scores:write"), increment("ann", "o1")
    targets = [
        "http://x/scoreboard/top", "/scoreboard/top/", "//scoreboard/top", "/scoreboard/%74op", "/scoreboard/top?",
        "/scoreboard/top?limit=", "/scoreboard/top?limit", "/scoreboard/top?boardId=ma%69n", "/scoreboard/top?x=1",
        "/scoreboard/top?&&", "/scoreboard/top?limit=+3", "/scores/a%2Fb", "/scores/%C3%A9", "/scores//around", "*",
    ]  # fmt: skip
    questions = [question(f"odd: {target}", "GET", target) for target in targets]
    questions += [
        question("odd: two tags", "GET", top, If_None_Match='W/"1-3-10", "x"'),
        question("odd: no token", "GET", top, Authorization="Bearer"),
        question("odd: HTML", "GET", top, Accept="text/html"),
        question("odd: a proxy that is not trusted", "GET", top, X_Forwarded_For="192.0.2.1"),
        question("odd: no length", "GET", top, Content_Length="0"),
        question("odd: no origin", "GET", top, Origin="null"),
        question("odd: two hosts", "GET", top, Host="y"),
    ]
    for request_id in ("", "with spaces in it", "x" * 65, "\xe9"):
        questions.append(question(f"odd id {request_id[:9]!r}", "GET", top, request_id=request_id))
        questions.append(question(f"odd id {request_id[:9]!r}", "POST", INCREMENT_PATH, body, token=write,
                                  request_id=request_id))  # fmt: skip
    questions += [
        question("two ids", "POST", INCREMENT_PATH, body, token=write, X_Request_ID="other"),
        question("two tokens", "POST", INCREMENT_PATH, body, token=write, AUTHORIZATION=write),
        question("lower case bearer", "POST", INCREMENT_PATH, body, token=write.replace("Bearer", "bearer")),
        question("two spaces", "POST", INCREMENT_PATH, body, token=write.replace(" ", "  ")),
        question("charset", "POST", INCREMENT_PATH, body, token=write, Content_Type="application/json; charset=utf-8"),
        question(
            "another charset", "POST", INCREMENT_PATH, body, token=write, Content_Type="application/json;charset=x"
        ),
        question("identity", "POST", INCREMENT_PATH, body, token=write, Content_Encoding="identity"),
        question("lower case method", "get", top),
        question("a method that is none", "BREW", top),
        question("GET with a body", "GET", top, b"abc", Content_Length="3"),
        question("HTTP/1.0", "GET", f"{top} HTTP/1.0\r\nX: "),
    ]
    return questions


def others(*, promotable: bool) -> list[Question]:
    """Users, and what is for operators and browsers. A node that could be promoted is not asked to by its admin."""
    users, admin = bearer("users:write"), bearer("admin")
    name = msgspec.json.encode({"displayName": "Zoë"})
    questions = [
        question("put", "PUT", "/users/ann", name, token=users),
        question("put nothing", "PUT", "/users/ann", b"{}", token=users),
        question("put by query", "PUT", "/users?userId=ann", name, token=users),
        question("put no name", "PUT", "/users/ben", b'{"displayName":null}', token=users),
        question("put a blank name", "PUT", "/users/ann", '{"displayName":"\u3164"}'.encode(), token=users),
        question("put out", "PUT", "/users/out", b'{"active":false}', token=users),
        question("put half of JSON", "PUT", "/users/ann", b"{", token=users),
        question("put without a token", "PUT", "/users/ann", name),
        question("put without the scope", "PUT", "/users/ann", name, token=bearer("scores:write")),
        question("put another user", "PUT", "/users/ann", name, token=bearer("users:write", user="ben")),
        question("erase nobody", "DELETE", "/users/nobody", token=bearer("users:erase")),
        question("erase a user", "DELETE", "/users?userId=ben", token=bearer("users:erase")),
        question("erase again", "DELETE", "/users/ben", token=bearer("users:erase")),
        question("erase without the scope", "DELETE", "/users/ann", token=users),
        question("erase another user", "DELETE", "/users/ann", token=bearer("users:erase", user="ben")),
        question("put a long body", "PUT", "/users/ann", token=users, Content_Length="99999999"),
        question("promote without the scope", "POST", "/replication/promote", token=users),
        question("followers", "GET", "/replication/followers", token=bearer("log:read")),
        question("followers without the scope", "GET", "/replication/followers", token=users),
        question("a quorum", "GET", "/quorum", token=bearer("log:read")),
        question("a quorum without the scope", "GET", "/quorum", token=users),
        question("step down", "POST", "/quorum/step-down", token=admin),
        question("step down without the scope", "POST", "/quorum/step-down", token=users),
        question("ready as a leader", "GET", "/readyz?role=leader"),
        question("ready as what", "GET", "/readyz?role=x"),
        question("POST to health", "POST", "/healthz"),
        question("long head", "GET", "/healthz", X="x" * 20_000),
        question("no HTTP", "GET", "/ HTTP/9.9\r\nX: "),
    ]
    paths = (
        "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/console", "/", "/scoreboard.js",
        "/embed", "/wall", "/qr.svg", "/viewers", "/viewers?boardId=nowhere",
        "/ws/scoreboard",
    )  # fmt: skip
    questions += [question(path, "GET", path) for path in paths]
    streams = ("/ws/scoreboard", "/sse/scoreboard", EVENT_FEED)
    questions += [question(f"HEAD of {path}", "HEAD", path) for path in streams]
    questions.append(question("a stream of no board", "GET", "/sse/scoreboard?boardId=nowhere"))
    questions.append(question("webhooks", "GET", "/webhooks", token=admin))
    questions.append(question("no webhook", "POST", "/webhooks/shop/enable", token=admin))
    questions.append(question("an event feed of no board", "GET", EVENT_FEED.replace("main", "nowhere")))
    questions.append(question("an event feed from nowhere", "GET", f"{EVENT_FEED}?since_token=x"))
    if not promotable:
        questions.append(question("promote", "POST", "/replication/promote", token=admin))
    return questions


FROZEN = (
    "/scoreboard/top?boardId=cup", "/scoreboard?boardId=cup", "/scores/ann?boardId=cup",
    "/scores/ann/around?boardId=cup", "/boards?boardId=cup", "/boards/periods?boardId=cup",
    "/feeds/ctftime.json?boardId=cup", "/feeds/clics/contests/cup/scoreboard?_=1",
)  # fmt: skip
"""Reads of a board while it is frozen."""

PAST = (
    "/scoreboard/top?boardId=a/b&period=previous", "/scoreboard/top?boardId=a/b&per%69od=previous",
    "/scoreboard/top?boardId=a/b&period=x", "/scoreboard/top?boardId=a/b&v%69ew=live",
    "/scoreboard?boardId=a/b&period=previous", "/scores/ann?boardId=a/b&period=previous",
    "/scores/ann/around?boardId=a/b&period=previous", "/boards/a%2Fb/periods",
    "/boards/a%2Fb/export?format=csv&period=previous", "/boards/export?boardId=a/b&format=ndjson", "/boards/cup/export",
    "/scoreboard/top?boardId=a/b&asOfSeq=1", "/scoreboard/top?as%4Ff=0", "/scoreboard/top?asOf=0&limit=0",
)  # fmt: skip
"""Reads of periods that ended and of the past, exports, and names of parameters that are written in an unusual way."""


def boards() -> list[Question]:
    """Boards themselves, and increments that carry a value. They come last: some of the boards are closed."""
    keeper, read = bearer("boards:write"), bearer("scores:read")
    judge, write = bearer("scores:write", "scores:value"), bearer("scores:write")
    cup = msgspec.json.encode(
        {"points": {"WIN": 3, "LAP": {"min": 1, "max": 9}}, "period": {"starts": "2020-01-01T00:00:00Z"}}
    )
    lap = increment("ann", "lap", boardId="cup", reason="LAP", value=5)
    questions = [
        question("make a board", "PUT", "/boards/cup", cup, token=keeper),
        question("make a board by query", "PUT", "/boards?boardId=a/b", cup, token=keeper),
        question("make a board without points", "PUT", "/boards/cup", b"{}", token=keeper),
        question("make a board of half of JSON", "PUT", "/boards/cup", b"{", token=keeper),
        question("make a board without a token", "PUT", "/boards/cup", cup),
        question("make a board without the scope", "PUT", "/boards/cup", cup, token=write),
        question("a value", "POST", INCREMENT_PATH, lap, token=judge),
        question("another value", "POST", INCREMENT_PATH, lap.replace(b"5", b"6"), token=judge),
        question("a value without the scope", "POST", INCREMENT_PATH, lap, token=write),
        question("a value that is a text", "POST", INCREMENT_PATH, lap.replace(b"5", b'"5"'), token=judge),
        question("a value below 0", "POST", INCREMENT_PATH, lap.replace(b"5", b"-5"), token=judge),
        question("no value", "POST", INCREMENT_PATH, lap.replace(b"5", b"null"), token=judge),
        question("batch: values", "POST", BATCH_PATH, b"[" + lap + b"]", token=judge),
        question("batch: values without the scope", "POST", BATCH_PATH, b"[" + lap + b"]", token=write),
        question("the board with its rules", "GET", "/boards/cup", token=read),
        question("the boards with their rules", "GET", "/boards", token=read),
        question("HEAD of a board", "HEAD", "/boards/cup"),
        question("OPTIONS of a board", "OPTIONS", "/boards/cup", Access_Control_Request_Method="DELETE"),
        question("POST to a board", "POST", "/boards/cup", token=keeper),
        question("freeze a board by query", "POST", "/boards/freeze?boardId=a/b", b"{}", token=keeper),
        question("freeze a board", "POST", "/boards/cup/freeze", token=keeper),
        question(
            "freeze a board in the past", "POST", "/boards/cup/freeze", b'{"at":"2020-01-01T00:00:00Z"}', token=keeper
        ),
        question("freeze a board without the scope", "POST", "/boards/cup/freeze", token=read),
        question("count while frozen", "POST", INCREMENT_PATH, lap.replace(b'"lap"', b'"frozen"'), token=judge),
        *[
            question(f"{target} of now, {name}", "GET", f"{target}&view=live", token=token)
            for target in FROZEN
            for name, token in (("no token", None), ("no scope", write), ("read", read))
        ],
        *[question(target, "GET", target) for target in FROZEN],
        question(
            "a query of now", "POST", "/scores/query?view=live", b'{"userIds":["ann"],"boardId":"cup"}', token=read
        ),
        question("a receipt of a frozen board", "GET", "/actions/frozen", token=bearer("scores:write")),
        question("reveal by query", "POST", "/boards/reveal?boardId=a/b", b'{"step":5}', token=keeper),
        question("reveal", "POST", "/boards/cup/reveal", token=keeper),
        question("reveal too many", "POST", "/boards/cup/reveal", b'{"step":1001}', token=keeper),
        question("unfreeze", "POST", "/boards/cup/unfreeze", token=keeper),
        question("unfreeze by query", "POST", "/boards/unfreeze?boardId=a/b", token=keeper),
        question("end a period", "POST", "/boards/reset?boardId=a/b", token=keeper),
        *[question(target, "GET", target) for target in PAST],
        question("close a board by query", "DELETE", "/boards?boardId=a/b", token=keeper),
        question("reset a closed board by query", "POST", "/boards/reset?boardId=a/b", token=keeper),
        question("reset another period", "POST", "/boards/cup/reset", b'{"period":"x"}', token=keeper),
        question("close a board", "DELETE", "/boards/cup", token=keeper),
        question("close a board without the scope", "DELETE", "/boards/cup", token=write),
        question("close no board", "DELETE", "/boards/nowhere", token=keeper),
        question("reset a closed board", "POST", "/boards/cup/reset", token=keeper),
        question("change a closed board", "PUT", "/boards/cup", cup, token=keeper),
        question("a value for a closed board", "POST", INCREMENT_PATH, lap.replace(b'"lap"', b'"late"'), token=judge),
    ]
    targets = ("/boards", "/boards/cup", "/boards?boardId=a/b", "/boards/nowhere", "/boards/reset", "/boards?x=1")
    return questions + [question(target, "GET", target) for target in targets]


def all_questions(*, promotable: bool = False) -> list[Question]:
    """Every request of this file."""
    return [*increments(), *batches(), *reads(), *odd_ones(), *others(promotable=promotable), *boards()]


_FIGURES = (
    (re.compile(rb'"nextCursor":"[^"]+"'), b'"nextCursor":""'),
    (re.compile(rb'"leader":"http://127.0.0.1:\d+"'), b'"leader":"http://127.0.0.1:0"'),
    (re.compile(rb'"(ageMs|lagMs)":\d+'), rb'"\1":0'),
    (re.compile(rb"not heard for \d+ seconds"), b"not heard for 0 seconds"),
)


Comparable = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""


def comparable(asked: Question, answer: Answer) -> Comparable:
    """Give what must be the same in every lane: status, headers and body without what the time decides."""
    headers = dict(answer.headers)
    assert headers.pop("date").endswith(" GMT")
    body = answer.body
    if "x-scoreboard-lag-ms" in headers:
        headers["x-scoreboard-lag-ms"] = re.sub(r"\d+", "0", headers["x-scoreboard-lag-ms"])
    for figure, same in _FIGURES:
        body = figure.sub(same, body)
    if asked.target == "/metrics":  # the figures count the lanes; their names are the same
        body = b"\n".join(line for line in body.splitlines() if line.startswith(b"# TYPE "))
    if body != answer.body or asked.method == "HEAD":
        headers.pop("content-length", None)  # the reader of the answer has used it
    return answer.status, sorted(headers.items()), body
