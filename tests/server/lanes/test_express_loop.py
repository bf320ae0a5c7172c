"""The loop: many connections in one task, and each as if it were alone. Here: requests, answers, heads, faults."""

from __future__ import annotations

import os
from ipaddress import ip_network
from unittest.mock import Mock

import jwt
import msgspec
import pytest
import trio
import trio.testing

from engine.action_reading import part_of
from engine.actor import Submission
from engine.errors import OutcomeUnknown
from engine.limits import INBOX_COMMANDS_MAX
from server import bounds
from server.access.auth import Authenticator
from server.access.issuers import TrustedIssuer
from server.access.keys import FixedKeys
from server.api import increments
from server.api.decoding import IncrementBody, decode_increment
from server.api.pipeline import Head
from server.http.client_address import TrustedProxies
from server.http.messages import Request
from server.settings.config import AuthConfig
from tests.server.api.support import WRITER
from tests.server.lanes.setting import OTHER, Gate, Setting, chunked, get, one, open_setting, post
from tests.server.lanes.support import Answer, Client

SECRET = b"a-secret-that-is-long-enough-for-hs256"


ROUTES = ("/scores/increment", "/scoreboard/top")


def send_now(client: Client, data: bytes) -> None:
    """Send without letting anybody else run, so that the loop finds all that was sent together."""
    assert os.write(client.stream.socket.fileno(), data) == len(data)


def action(answer: Answer) -> object:
    assert answer.status == 200, answer
    return msgspec.json.decode(answer.body)["actionId"]


async def parked_clients(setting: Setting, count: int) -> list[Client]:
    return [await setting.parked() for _ in range(count)]


# ---- many at once ----------------------------------------------------------------------------------------------------


async def test_what_waits_together_is_written_together_and_each_gets_its_own_answer() -> None:
    """Twenty connections, one frame of the log."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 20)
        for n, client in enumerate(clients):
            send_now(client, post(one(f"u{n}", f"a{n}")))
        assert [action(await client.answer()) for client in clients] == [f"a{n}" for n in range(20)]
        assert [len(applied.events) for applied in setting.bench.applied] == [20]
        assert all(setting.is_parked(client) for client in clients)
        assert setting.lane_count("/scores/increment", "express") == 20


async def test_what_is_answered_in_parts_reaches_its_own_clients() -> None:
    """The actor writes what it took at once in two frames, the second half first."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 4)
        write = setting.bench.actor._write_frame

        async def apart(taken: list[Submission]) -> None:
            (submission,) = taken
            await write([part_of(submission, [1, 3])])
            await write([part_of(submission, [0, 2])])

        setting.bench.actor._write_frame = apart  # type: ignore[method-assign]
        for n, client in enumerate(clients):
            send_now(client, post(one(f"u{n}", f"a{n}")))
        answers = [await client.answer() for client in clients]
        assert [action(answer) for answer in answers] == [f"a{n}" for n in range(4)]
        assert [msgspec.json.decode(answer.body)["seq"] for answer in answers] == [3, 1, 4, 2]
        assert setting.lane_count("/scores/increment", "express") == 4


@pytest.mark.parametrize("bound", ["bounds.EXPRESS_EVENTS_MAX", "BATCH_COMMANDS_MAX"])
async def test_more_than_fit_in_one_turn_are_all_answered(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten connections where three are read, or submitted, at once."""
    monkeypatch.setattr(f"server.lanes.express_loop.{bound}", 3)
    async with open_setting() as setting:
        clients = await parked_clients(setting, 10)
        for n, client in enumerate(clients):
            send_now(client, post(one("ann", f"a{n}")))
        assert [action(await client.answer()) for client in clients] == [f"a{n}" for n in range(10)]
        assert setting.lane_count("/scores/increment", "express") == 10
        assert len(setting.bench.logged()) == 10


async def test_the_top_needs_no_actor_and_is_counted() -> None:
    """It is answered while the actor is busy, and every one of them is in the latencies."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 3)
        gate = Gate(setting.bench)
        send_now(clients[0], post(one("ann", "a1")))
        for client in clients[1:]:
            send_now(client, get())
        assert [(await client.answer()).status for client in clients[1:]] == [200, 200]
        assert setting.lane_count("/scoreboard/top", "express") == 3 + 2
        gate.open()
        assert action(await clients[0].answer()) == "a1"


# ---- the order of things on one connection ---------------------------------------------------------------------------


async def test_a_request_that_comes_while_another_is_in_flight_is_answered_after_it() -> None:
    """It waits in the socket meanwhile, and no task spins."""
    async with open_setting() as setting:
        client = await setting.parked()
        gate = Gate(setting.bench)
        await client.send(post(one("ann", "a1")))
        await gate.wait_reached()
        await client.send(post(one("ann", "a2")) + get("?limit=3") + post(one("ann", "a3")))
        await trio.testing.wait_all_tasks_blocked()
        gate.open()
        assert action(await client.answer()) == "a1"
        assert action(await client.answer()) == "a2"
        assert (await client.answer()).headers["etag"].endswith('-3"')
        assert action(await client.answer()) == "a3"
        assert await client.ask(get()), "and it goes on"


@pytest.mark.parametrize(
    "first",
    [post(one("ann", "a1"))[:-5], post(one("ann", "a1"))[:30], b"P", b"\r", b"\r\n", b"\r\n\r\n", chunked(b"")[:-3]],
    ids=["body in parts", "head in parts", "a letter", "CR", "CRLF", "two CRLF", "chunks in parts"],
)
async def test_what_comes_in_parts_is_put_together(first: bytes) -> None:
    """The loop leaves it to the connection's task with nothing lost, and gets the connection back afterwards."""
    whole = {
        b"\r": b"\r\n" + post(one("ann", "a1")),
        b"\r\n": b"\r\n" + post(one("ann", "a1")),
        b"\r\n\r\n": b"\r\n\r\n" + post(one("ann", "a1")),
        chunked(b"")[:-3]: chunked(one("ann", "a1")),
    }.get(first, post(one("ann", "a1")))
    first = whole[: len(first)]
    async with open_setting() as setting:
        client = await setting.parked()
        await client.send(first)
        await trio.testing.wait_all_tasks_blocked()
        assert not setting.is_parked(client)
        await client.send(whole[len(first) :])
        assert action(await client.answer()) == "a1"
        await trio.testing.wait_all_tasks_blocked()
        assert setting.is_parked(client)


async def test_half_an_empty_line_after_a_request_belongs_to_the_next() -> None:
    """Or the same bytes would be read otherwise when their head is remembered: here CR and LF come apart."""
    async with open_setting() as setting:
        client = await setting.parked()
        assert action(await client.ask(post(one("ann", "a1")) + b"\r")) == "a1"
        assert action(await client.ask(b"\n" + post(one("ann", "a2")))) == "a2"
        assert action(await client.ask(post(one("ann", "a3")))) == "a3"
        other = await setting.parked()
        assert action(await other.ask(post(one("ann", "a4")))) == "a4"
        assert (await other.ask(post(one("ann", "a5")) + b"\r")).status == 200
        answer = await other.ask(post(one("ann", "a6")))
        assert (answer.status, answer.code()) == (400, "INVALID_REQUEST"), "a CR without its LF"


async def test_a_request_for_another_lane_takes_the_connection_along() -> None:
    """Also with a body that came with it."""
    async with open_setting() as setting:
        client = await setting.parked()
        assert msgspec.json.decode((await client.ask(OTHER)).body) == {"status": "ok"}
        other = await setting.parked()
        body = msgspec.json.encode({"displayName": "Ann"})
        head = b"PUT /users/ann HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer r users:write\r\n"
        answer = await other.ask(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert (answer.status, msgspec.json.decode(answer.body)["displayName"]) == (200, "Ann")
        assert not setting.is_parked(client)
        assert not setting.is_parked(other)


@pytest.mark.parametrize("last", [get("", b"Connection: close\r\n"), get().replace(b"HTTP/1.1", b"HTTP/1.0")])
async def test_the_last_request_of_a_client_ends_its_connection(last: bytes) -> None:
    """`Connection: close`, and HTTP/1.0; sent twice on two connections, so that nothing of it was remembered."""
    async with open_setting() as setting:
        for _ in range(2):
            client = await setting.parked()
            answer = await client.ask(last)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await client.ended()


# ---- heads that are remembered ---------------------------------------------------------------------------------------


def remembered(setting: Setting) -> int:
    return len(setting.loop._heads)


async def test_an_expired_token_is_refused_though_its_head_is_remembered() -> None:
    """At `exp` to the second it is verified anew, with the leeway that clocks are given; after that it is refused."""
    now = [1_000_000.0]
    exp = 1_000_060
    claims = {"sub": "game", "aud": "scoreboard", "exp": exp, "scope": "scores:write"}
    token = f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"
    authenticator = Authenticator([TrustedIssuer(AuthConfig(), FixedKeys([SECRET]))], clock_s=lambda: now[0])
    async with open_setting(authenticator=authenticator) as setting:
        client = await setting.parked()
        for n in range(3):
            assert action(await client.ask(post(one("ann", f"a{n}"), token=token))) == f"a{n}"
        assert remembered(setting) == 1
        now[0] = float(exp)
        assert action(await client.ask(post(one("ann", "a3"), token=token))) == "a3"
        await trio.testing.wait_all_tasks_blocked()
        assert remembered(setting) == 0, "within the leeway a token is verified each time"
        now[0] = float(exp + bounds.TOKEN_LEEWAY_SECONDS)
        answer = await client.ask(post(one("ann", "a4"), token=token))
        assert (answer.status, answer.code()) == (401, "UNAUTHENTICATED")
        assert len(setting.bench.logged()) == 4


async def test_a_withdrawn_key_is_heeded_though_the_head_is_remembered() -> None:
    """A new generation makes every head with a token be read anew."""
    async with open_setting() as setting:
        client = await setting.parked()
        for n in range(3):
            await client.ask(post(one("ann", f"a{n}")))
        asked: list[str | None] = []
        tokens = setting.bench.dependencies.authenticator
        recall = tokens.recall

        def forgotten(authorization: str | None) -> None:
            asked.append(authorization)

        tokens.recall = forgotten  # type: ignore[method-assign]
        assert (await client.ask(post(one("ann", "a3")))).status == 200
        assert asked == [], "not looked at while the generation is the same"
        tokens.generation = 2  # type: ignore[misc]
        assert (await client.ask(post(one("ann", "a4")))).status == 401
        assert asked
        tokens.recall = recall  # type: ignore[method-assign]
        assert (await client.ask(get())).status == 200, "a head without a token needs no key"


async def test_no_more_heads_are_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request here has its own head; at the limit all are forgotten. Long heads are never remembered."""
    monkeypatch.setattr("server.bounds.HEADS_MAX", 4)
    async with open_setting() as setting:
        client = await setting.parked()
        most = 0
        for n in range(12):
            assert action(await client.ask(post(one("ann", f"a{n}"), extra=b"N: %d\r\n" % n))) == f"a{n}"
            most = max(most, remembered(setting))
        assert most == 4
        before = remembered(setting)
        long = b"N: %s\r\n" % (b"n" * bounds.HEAD_REMEMBERED_BYTES_MAX)
        assert action(await client.ask(post(one("ann", "long"), extra=long))) == "long"
        assert remembered(setting) == before
        assert not [known for known in setting.loop._heads.values() if WRITER in repr(known)], "a token was kept"


async def test_the_head_of_a_chunked_body_is_not_remembered() -> None:
    """It says nothing of the length: here the second body is as long with its framing as the first one without."""
    async with open_setting() as setting:
        client = await setting.parked()
        head = chunked(b"").removesuffix(b"0\r\n\r\n")
        short = one("ann", "s")
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(short), short)
        long = one("ann", "l" * (1 + len(framed) - len(short)))
        assert len(long) == len(framed)
        assert (await client.ask(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(long), long))).status == 200
        assert remembered(setting) == 0
        assert action(await client.ask(head + framed)) == "s"


async def test_one_head_from_two_addresses_is_told_of_each() -> None:
    """A remembered head has nothing of the client that sent it."""
    async with open_setting() as setting:
        for source in ("127.0.0.1", "127.0.0.2"):
            client = await setting.parked(source)
            assert (await client.ask(post(one("ann", f"of {source}")))).status == 200
            assert (await client.ask(post(one("", f"of {source}")))).status == 400
        assert [line["address"] for line in setting.bench.told("refused")] == ["127.0.0.1", "127.0.0.2"]
        assert remembered(setting) == 2, "one head for each length of a body"


async def test_behind_a_proxy_the_client_is_told_of() -> None:
    """By X-Forwarded-For or Forwarded, which are parts of the head."""
    async with open_setting(proxies=TrustedProxies([ip_network("127.0.0.1/32")])) as setting:
        client = await setting.parked()
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            extra = b"X-Forwarded-For: 198.51.100.9, %s\r\n" % address.encode()
            assert (await client.ask(post(one("", "a"), extra=extra))).status == 400
        told = [line["address"] for line in setting.bench.told("refused")]
        assert told == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
        assert (await client.ask(post(one("", "a"), extra=b"Forwarded: for=192.0.2.3\r\n"))).status == 400
        assert setting.bench.told("refused")[-1]["address"] == "192.0.2.3"


# ---- faults ----------------------------------------------------------------------------------------------------------


class Bug(Exception):
    """A mistake of ours."""


def decode_or_fail(body: bytes) -> IncrementBody:
    if b'"a1"' in body:
        raise Bug
    return decode_increment(body)


def fail_for(setting: Setting, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step fail for requests whose head says `Bug: yes`; `decode` for bodies with the action `a1`."""
    if step == "decode":
        monkeypatch.setattr(increments, "decode_increment", decode_or_fail)
        return
    real = getattr(setting.bench.pipeline, step)

    def failing(of: Head | Request, *arguments: object) -> object:
        if "bug" in (of.request if isinstance(of, Head) else of).headers:
            raise Bug
        return real(of, *arguments)

    monkeypatch.setattr(setting.bench.pipeline, step, failing)


@pytest.mark.parametrize("step", ["decode", "render", "top"])
async def test_a_bug_in_a_step_is_an_answer_to_one_request(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 to whom it met, told and counted once, in the latencies too; its neighbours in the same turn never know."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 3)
        fail_for(setting, step, monkeypatch)
        asked = sum(setting.lane_count(route, "express") for route in ROUTES)
        for n, client in enumerate(clients):
            extra = b"Bug: yes\r\n" if n == 1 else b""
            send_now(client, get("", extra) if step == "top" else post(one("ann", f"a{n}"), extra=extra))
        answers = [await client.answer() for client in clients]
        assert [answer.status for answer in answers] == [200, 500, 200]
        assert answers[1].code() == "INTERNAL_ERROR"
        assert answers[1].headers["x-request-id"] == "same"
        (line,) = setting.bench.told("internal_error")
        assert (line["kind"], line["request_id"]) == ("Bug", "same")
        assert setting.bench.metrics.value("scoreboard_failures_total", code="INTERNAL_ERROR") == 1
        assert sum(setting.lane_count(route, "express") for route in ROUTES) - asked == 3
        assert (await clients[1].ask(get())).status == 200, "the connection goes on"


async def test_a_bug_for_all_that_was_read_at_once_answers_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 for each of them, and nothing was counted; the connections go on."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 3)
        with monkeypatch.context() as patched:
            patched.setattr(setting.bench.pipeline, "admit", Mock(side_effect=Bug))
            for number, client in enumerate(clients):
                send_now(client, post(one("ann", f"a{number}")))
            assert [(await client.answer()).status for client in clients] == [500, 500, 500]
        assert setting.bench.logged() == []
        assert [(await client.ask(post(one("ann", "a1")))).status for client in clients] == [200, 200, 200]


@pytest.mark.parametrize("step", ["recognise", "failed"])
async def test_a_bug_without_an_answer_ends_one_connection(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted as the connection's; the others go on."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 3)
        fail_for(setting, step, monkeypatch)
        send_now(clients[0], get())
        send_now(clients[1], post(one("", "a"), extra=b"Bug: yes\r\n"))
        send_now(clients[2], get())
        assert await clients[1].ended()
        assert [(await client.answer()).status for client in (clients[0], clients[2])] == [200, 200]
        assert dict(setting.counts.faults) == {"Bug": 1}
        assert (await clients[0].ask(get())).status == 200


async def test_a_full_inbox_refuses_everyone_in_the_turn_and_counts_them() -> None:
    """503 with Retry-After; counted once each, as failures and in the latencies. Afterwards all goes on."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 3)
        setting.bench.actor._waiting = INBOX_COMMANDS_MAX
        for client in clients:
            send_now(client, post(one("ann", "a1")))
        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.code(), answer.headers["retry-after"]) == (503, "OVERLOADED", "1")
        assert setting.bench.metrics.value("scoreboard_failures_total", code="OVERLOADED") == 3
        assert setting.lane_count("/scores/increment", "express") == 3
        setting.bench.actor._waiting = 0
        assert action(await clients[0].ask(post(one("ann", "a1")))) == "a1"


async def test_without_a_quorum_everyone_in_the_turn_is_told_so() -> None:
    """503 `NO_QUORUM` with Retry-After, at once; it goes on when a majority answers."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 3)
        setting.bench.actor.doubt("no majority answers")
        for client in clients:
            send_now(client, post(one("ann", "a1")))
        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.code(), answer.headers["retry-after"]) == (503, "NO_QUORUM", "1")
        setting.bench.actor.doubt(None)
        assert action(await clients[0].ask(post(one("ann", "a1")))) == "a1"


async def test_who_was_being_written_when_the_disk_failed_is_told_so() -> None:
    """503 OUTCOME_UNKNOWN to each, counted as failures and as updates of unknown outcome."""
    async with open_setting() as setting:
        clients = await parked_clients(setting, 2)
        gate = Gate(setting.bench)
        gate.fails_with = OutcomeUnknown("the disk is broken")
        for client in clients:
            send_now(client, post(one("ann", "a1")))
        gate.open()
        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.code(), answer.headers["retry-after"]) == (503, "OUTCOME_UNKNOWN", "1")
        assert setting.bench.metrics.value("scoreboard_updates_total", result="unknown") == 2
        assert setting.bench.metrics.value("scoreboard_failures_total", code="OUTCOME_UNKNOWN") == 2
        assert setting.lane_count("/scores/increment", "express") == 2
        assert len(setting.bench.told("outcome_unknown")) == 2


async def test_rejections_and_limits_are_counted_once() -> None:
    """A conflict by the actor, a limit by the service: each one failure, one line, one latency."""
    async with open_setting(per_minute=(60_000, 2)) as setting:
        client = await setting.parked()
        statuses = [
            (await client.ask(post(one(user, name)))).status
            for user, name in [("ann", "a1"), ("ben", "a1"), ("ben", "b1"), ("ben", "b2")]
        ]
        assert statuses == [200, 409, 200, 429]
        value = setting.bench.metrics.value
        assert value("scoreboard_failures_total", code="CONFLICT") == 1
        assert value("scoreboard_failures_total", code="RATE_LIMITED") == 1
        assert value("scoreboard_rate_limit_hits_total", limit="user") == 1
        assert value("scoreboard_updates_total", result="refused") == 1
        assert [line["request_id"] for line in setting.bench.told("rate_limited")] == ["same"]
        assert setting.lane_count("/scores/increment", "express") == 4
