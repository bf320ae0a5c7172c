"""The steps of the pipeline: which heads may be remembered, and that the answers are those of `Pipeline.answer`."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
import trio

from engine.actor import Submission
from server.access.auth import ANYBODY
from server.api.pipeline import Head
from server.http.messages import Code, Request
from server.http.response_head import http_bytes
from tests.server.api.support import READER, REGISTRAR, WRITER, Bench, open_bench

ORIGINS = frozenset({"https://good.example"})
END = b"\r\n"
INCREMENT, TOP = "/scores/increment", "/scoreboard/top"


def request(method: str, target: str, *, token: str | None = None, body: bytes = b"", **headers: str) -> Request:
    """A request; the underscores of a header's name become hyphens."""
    sent = {"x-request-id": "r", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token is not None:
        sent["authorization"] = token
    path, _, query = target.partition("?")
    return Request(method, path, query, sent, body, "192.0.2.7")


async def by_steps(bench: Bench, asked: Request) -> bytes | None:
    """Answer as the express loop does; None if it is not for it."""
    pipeline = bench.pipeline
    head = pipeline.recognise(asked)
    if head is None:
        return None
    try:
        if head.top is not None:
            return pipeline.wire(head, pipeline.top(head), END)
        done: list[Submission] = []
        finished = trio.Event()

        def when_done(submission: Submission) -> None:
            done.append(submission)
            finished.set()

        [command] = pipeline.admit([(head.caller, asked.body)], pipeline.now_s())
        if isinstance(command, Exception):
            raise command
        pipeline.submit([command], when_done)
        await finished.wait()
        pipeline.count(done[0].outcomes)
        return pipeline.wire(head, pipeline.render(head, done[0].outcomes[0]), END)
    except Exception as error:
        return pipeline.failed(head, error, asked.address, END)


def one(user: str, action: str, **more: object) -> bytes:
    return msgspec.json.encode({"userId": user, "actionId": action, **more})


NOT_REMEMBERED = {
    "another route": request("GET", "/healthz"),
    "a batch": request("POST", "/scores/increment/batch", token=WRITER),
    "HEAD": request("HEAD", TOP),
    "OPTIONS": request("OPTIONS", TOP),
    "another method": request("PUT", INCREMENT, token=WRITER),
    "a path of another case": request("GET", "/scoreboard/Top"),
    "no token": request("POST", INCREMENT),
    "a token that is not remembered": request("POST", INCREMENT, token="Bearer unknown scores:write"),
    "a token without the scope": request("POST", INCREMENT, token=READER),
    "a token with another scope": request("POST", INCREMENT, token=REGISTRAR),
    "another kind of body": request("POST", INCREMENT, token=WRITER, content_type="text/csv"),
    "a packed body": request("POST", INCREMENT, token=WRITER, content_type="application/msgpack"),
    "a compressed body": request("POST", INCREMENT, token=WRITER, content_encoding="gzip"),
    "a limit that is none": request("GET", f"{TOP}?limit=x"),
    "a limit too high": request("GET", f"{TOP}?limit=51"),
    "a limit twice": request("GET", f"{TOP}?limit=1&limit=1"),
    "no such board": request("GET", f"{TOP}?boardId=nowhere"),
    "a query that is none": request("GET", f"{TOP}?" + "a&" * 200),
}


@pytest.mark.parametrize("asked", NOT_REMEMBERED.values(), ids=NOT_REMEMBERED.keys())
def test_what_is_not_simply_good_is_left_to_the_ordinary_way(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """`recognise` gives None, and has told and counted nothing: that is for whoever answers."""
    bench = Bench()
    recall = bench.dependencies.authenticator.recall
    monkeypatch.setattr(
        bench.dependencies.authenticator,
        "recall",
        lambda sent: None if "unknown" in (sent or "unknown") else recall(sent),
    )
    assert bench.pipeline.recognise(asked) is None
    assert bench.lines == []
    assert all(bench.metrics.value("scoreboard_failures_total", code=code) == 0 for code in get_args(Code))


def head_of(bench: Bench, asked: Request) -> Head:
    head = bench.pipeline.recognise(asked)
    assert head is not None
    return head


def test_a_head_holds_no_token_no_body_and_no_address() -> None:
    """It stands for a head, whoever sends it; and it is the caller's that the token names."""
    head = head_of(Bench(), request("POST", INCREMENT, token=WRITER, body=b"{}"))
    assert "Bearer" not in repr(head)
    assert (head.request.body, head.request.address) == (b"", "")
    assert (head.caller.sub, head.top, head.has_id) == ("backend", None, True)


@pytest.mark.parametrize("sent_id", ["", "a b", "x" * 65, "r\u00e9"])
def test_an_id_that_is_none_is_not_given_back(sent_id: str) -> None:
    """Each answer then has a new one, though the head is the same."""
    bench = Bench()
    head = head_of(bench, request("GET", TOP, x_request_id=sent_id))
    assert not head.has_id
    pipeline = bench.pipeline
    first, second = (pipeline.wire(head, pipeline.top(head), END) for _ in range(2))
    assert first != second
    assert first.count(b"x-request-id: request-") == second.count(b"x-request-id: request-") == 1


def test_without_public_reads_the_top_needs_a_token_and_holds_as_long_as_it() -> None:
    """With them it needs none, looks at none, and holds for ever."""
    closed = Bench(public_reads=False)
    assert closed.pipeline.recognise(request("GET", TOP)) is None
    assert closed.pipeline.recognise(request("GET", TOP, token=REGISTRAR)) is None
    head = head_of(closed, request("GET", TOP, token=READER))
    assert head.caller.sub == "viewer"
    assert closed.pipeline.holds(head)
    closed.dependencies.authenticator.generation += 1  # type: ignore[misc]
    assert not closed.pipeline.holds(head)
    public = Bench()
    head = head_of(public, request("GET", TOP, token="nonsense"))
    public.dependencies.authenticator.generation += 1  # type: ignore[misc]
    assert head.caller is ANYBODY
    assert public.pipeline.holds(head)


ETAG = 'W/"1-0000000000000000-1-10"'
REMEMBERED = {
    "an increment": request("POST", INCREMENT, token=WRITER, body=one("ann", "new")),
    "a repeated one": request("POST", INCREMENT, token=WRITER, body=one("ann", "a1")),
    "a conflict": request("POST", INCREMENT, token=WRITER, body=one("ben", "a1")),
    "no such reason": request("POST", INCREMENT, token=WRITER, body=one("ann", "new", reason="NO")),
    "no such board": request("POST", INCREMENT, token=WRITER, body=one("ann", "new", boardId="no")),
    "an unknown field": request("POST", INCREMENT, token=WRITER, body=one("ann", "new", delta=1)),
    "no JSON": request("POST", INCREMENT, token=WRITER, body=b"{"),
    "no body": request("POST", INCREMENT, token=WRITER),
    "another's points": request("POST", INCREMENT, token="Bearer shop scores:write ben", body=one("ann", "new")),
    "a write from a page": request(
        "POST", INCREMENT, token=WRITER, body=one("ann", "n"), origin="https://good.example"
    ),
    "the top": request("GET", TOP),
    "a part of it": request("GET", f"{TOP}?limit=1&boardId=weekly"),
    "a top that is known": request("GET", TOP, if_none_match=ETAG),
    "known by a strong tag": request("GET", TOP, if_none_match=ETAG.removeprefix("W/")),
    "known by one of many": request("GET", TOP, if_none_match=f'"x", {ETAG} , "y"'),
    "known by any tag": request("GET", TOP, if_none_match=" * "),
    "not known": request("GET", TOP, if_none_match='W/"1-0000000000000000-0-10", "*"'),
    "no tag": request("GET", TOP, if_none_match=""),
    "from a page that may read": request("GET", TOP, origin="https://Good.example"),
    "from another page": request("GET", TOP, origin="https://evil.example"),
}


@pytest.mark.parametrize("origins", [None, ORIGINS], ids=["all origins", "some origins"])
@pytest.mark.parametrize("asked", REMEMBERED.values(), ids=REMEMBERED.keys())
async def test_the_steps_give_the_answer_of_the_whole_way(asked: Request, origins: frozenset[str] | None) -> None:
    """Head and body to the byte, the lines that are told and what is counted, from the same state."""
    found = []
    for step in (True, False):
        async with open_bench(origins=origins) as bench:
            await bench.increment("ann", "a1")
            if step:
                answer = await by_steps(bench, asked)
            else:
                response = await bench.pipeline.answer(asked, "direct")
                answer = http_bytes(response, END)
            assert answer is not None
            value = bench.metrics.value
            counts = {
                **{code: value("scoreboard_failures_total", code=code) for code in ("CONFLICT", "INVALID_REQUEST")},
                **{
                    what: value("scoreboard_updates_total", result=what) for what in ("applied", "duplicate", "refused")
                },
            }
            found.append((answer, bench.lines, counts, bench.logged()))
    assert found[0] == found[1]


async def test_both_limits_are_charged_as_ever() -> None:
    """The third increment of a user who may have two is refused in steps as well, and the caller is not charged."""
    async with open_bench(per_minute=(60_000, 2)) as bench:
        answers = [
            await by_steps(bench, request("POST", INCREMENT, token=WRITER, body=one("ann", f"a{n}"))) for n in range(3)
        ]
        assert [answer[9:12] for answer in answers if answer] == [b"200", b"200", b"429"]
        assert b"\r\nretry-after: " in (answers[2] or b"")
        assert bench.metrics.value("scoreboard_rate_limit_hits_total", limit="user") == 1
