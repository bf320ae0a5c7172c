"""Watches a board: a stream while the server gives one, else a poll now and then. Pure.

    states = watch(caller, "main")      steps that emit a `LiveState` for each change, for ever

                          ┌────────── stream (GET /sse/scoreboard) ◄─────────┐
    it breaks: come back ─┘   │ refused, or silent from its beginning        │ after STREAM_AGAIN_S, or Retry-After
    (jitter, Last-Event-ID)   └──► poll (GET /scoreboard/top, ETag) ─────────┘

Rules:
- No state is older than one that was shown, whichever node gave it. The same state is not shown twice.
- A node that does not answer is left for the next one. What will not pass (a bad token, an unknown board) is raised.
- A stream that is open brings a comment every 15 seconds. One that is silent for SILENCE_S is dead.
- The waits before coming back are random: all viewers lose a server at the same moment.
"""

from __future__ import annotations

import json
from dataclasses import replace

from scoreboard_client import requests
from scoreboard_client.answers import LiveState, polled_state, read_live
from scoreboard_client.calls import Again, Caller, asked_s, attempt, jitter_s
from scoreboard_client.effects import Close, Emit, Fault, Open, Read, Steps, Wait, look
from scoreboard_client.errors import UnexpectedAnswer, api_error
from scoreboard_client.event_stream import EventReader

SILENCE_S = 40.0
"""Two comments of the server and some more."""

POLL_S = 2.0
STREAM_AGAIN_S = 30.0
"""While it polls: between two polls, and until it asks for a stream again."""

COME_BACK_S = 1.0
"""After a stream that ended without having said how long to wait."""

STREAM_TYPE = "text/event-stream"
FINAL = (400, 401, 403, 410)


class _Shown:
    """What was shown last."""

    def __init__(self) -> None:
        self.state: LiveState | None = None

    def is_news(self, state: LiveState) -> bool:
        """Whether a state is to be shown. Remembers it then."""
        last = self.state
        if last is not None:
            if state.position < last.position:
                return False
            if replace(state, generated_at=last.generated_at, kind=last.kind) == last:
                return False
        self.state = state
        return True


def watch(caller: Caller, board_id: str) -> Steps[None]:
    """Emit each state of a board. Raises `ApiError` for what will not pass."""
    nodes, shown = caller.nodes, _Shown()
    failures, last_id = 0, ""
    renewed = False
    strangers: set[int] = set()
    while True:
        node = nodes.reader
        opened = yield Open(nodes.urls[node], requests.stream(board_id, last_id), caller.attempt_s, SILENCE_S)
        answer = opened.result
        poll_s: float | None = None
        wait_s = 0.0
        if isinstance(answer, Fault):
            nodes.reader = (node + 1) % len(nodes)
        elif answer.status == 200 and answer.headers.get("content-type", "").startswith(STREAM_TYPE):
            reader = EventReader(last_id)
            spoke = yield from _read(reader, shown)
            yield Close()
            strangers.clear()
            renewed = False
            last_id = reader.last_id
            if spoke:
                failures, wait_s = 0, COME_BACK_S if reader.retry_s is None else reader.retry_s
            else:
                poll_s = STREAM_AGAIN_S
        else:
            yield Close()
            error = api_error(answer.status, answer.json())
            if answer.status == 401 and caller.renews_token and not renewed:
                renewed = True
                continue
            if answer.status in FINAL:
                raise error
            if answer.status == 421:
                strangers.add(node)
                nodes.reader = (node + 1) % len(nodes)
                if len(strangers) == len(nodes):
                    raise error
                continue
            poll_s = max(STREAM_AGAIN_S, asked_s(error, answer))
        if poll_s is not None:
            yield from _poll(caller, board_id, shown, poll_s)
            continue
        failures += 1
        now = yield from look()
        yield Wait(wait_s + jitter_s(failures, now.lot))


def _read(reader: EventReader, shown: _Shown) -> Steps[bool]:
    """Emit what a stream brings, until it ends. Give whether it brought anything."""
    spoke = False
    while True:
        came = (yield Read()).result
        if isinstance(came, Fault) or not came:
            return spoke
        spoke = True
        try:
            events = reader.feed(came)
        except UnexpectedAnswer:
            return True
        for event in events:
            try:
                state = read_live(json.loads(event))
            except ValueError:
                raise UnexpectedAnswer(f"the live channel sent {event!r:.60}, which is no JSON") from None
            if state is not None and shown.is_news(state):
                yield Emit(state)


def _poll(caller: Caller, board_id: str, shown: _Shown, seconds: float) -> Steps[None]:
    """Emit what polls bring, for so long."""
    nodes, etag, failures = caller.nodes, "", 0
    now = yield from look()
    end_s = now.now_s + seconds
    strangers: set[int] = set()
    while True:
        now = yield from look()
        start = nodes.reader
        deadline_s = now.now_s + caller.attempt_s
        outcome = yield from attempt(caller, requests.poll(board_id, etag), start, deadline_s, writes=False)
        now = yield from look()
        if isinstance(outcome, Again):
            failures += 1
            if outcome.stranger:
                strangers.add(start)
            if len(strangers) == len(nodes):
                raise outcome.trouble
            nodes.reader = (start + 1) % len(nodes)
            wait_s = outcome.wait_s + jitter_s(failures, now.lot)
        else:
            failures = 0
            if outcome.status != 304:
                etag = outcome.headers.get("etag", "")
                state = polled_state(outcome.json())
                if shown.is_news(state):
                    yield Emit(state)
            wait_s = POLL_S * (0.5 + now.lot)
        is_over = now.now_s + wait_s >= end_s
        yield Wait(max(0.0, end_s - now.now_s) if is_over else wait_s)
        if is_over:
            return
