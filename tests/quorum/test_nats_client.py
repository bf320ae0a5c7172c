"""The client of NATS, against servers that do as the test says: they are silent, refuse, cut, and come back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from server.quorum import nats_limits as limits
from server.quorum.nats_client import NatsClient, opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_protocol import Info, Message
from server.quorum.stream import StreamRefused, Unanswered
from server.settings.quorum import ServerAddress
from tests.e2e.tls import certificates
from tests.quorum.fake_server import NOBODY, FakeServer, fake_server

LONG_S = 30.0
"""A time that only a hanging test reaches."""


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(limits, "RETRY_SECONDS_MAX", 0.02)
    monkeypatch.setattr(limits, "UNANSWERED_SECONDS", 0.0)


def first(low: float, _high: float) -> float:
    """The smallest random number: the first server, and no wait."""
    return low


@asynccontextmanager
async def client_of(*servers: FakeServer, **more: Any) -> AsyncIterator[NatsClient]:
    options = NatsOptions(servers=[server.url for server in servers], **more)
    async with opened(options, name="node", uniform=first) as client:
        yield client


async def test_a_request_gets_its_own_answer() -> None:
    """Two at once, answered in the other order; headers and payloads arrive as they were sent."""
    came: list[tuple[bytes, bytes]] = []

    def note(head: bytes, payload: bytes) -> bytes:
        came.append((head, payload))
        return payload.upper()

    async with fake_server() as server, client_of(server) as client:
        server.answers = {"loud": note}
        answer = await client.request("loud", b"abc", headers=(("Key", "v"),), timeout_s=LONG_S)
        assert answer.payload == b"ABC"
        assert came == [(b"NATS/1.0\r\nKey: v\r\n\r\n", b"abc")]
        deadline = trio.current_time() + LONG_S
        questions = [await client.ask("loud", text, deadline=deadline) for text in (b"a", b"b")]
        assert [(await question.wait(deadline)).payload for question in reversed(questions)] == [b"B", b"A"]
        assert server.introductions[0]["headers"] is server.introductions[0]["no_responders"] is True
        assert server.introductions[0]["name"] == "node"


async def test_subscriptions_are_made_anew_on_each_connection() -> None:
    """The server cuts; the client comes back, and hears what it had subscribed to."""
    heard: list[bytes] = []
    async with fake_server() as server, client_of(server) as client:
        client.subscribe("words", lambda message: heard.append(message.payload))
        await server.wait(lambda: "words" in server.subscriptions)
        await server.deliver("words", b"one")
        await server.cut()
        await server.wait(lambda: server.subscriptions.count("words") == 2)
        await server.deliver("words", b"two")
        server.answers = {"x": b""}
        await client.request("x", timeout_s=LONG_S)
    assert heard == [b"one", b"two"]


async def test_an_answer_that_is_late_or_unknown_is_dropped() -> None:
    async with fake_server() as server, client_of(server) as client:
        server.answers = {"x": b"right"}
        await client.request("x", timeout_s=LONG_S)
        inbox = next(name for name in server.subscriptions if name.startswith("_INBOX."))[:-1]
        for reply in ("77", "x", "1.2"):
            await server.say(f"MSG {inbox}{reply} 1 0\r\n\r\nMSG {inbox}{reply} 99 0\r\n\r\n".encode())
        assert (await client.request("x", timeout_s=LONG_S)).payload == b"right"


@pytest.mark.parametrize("answer", [None, NOBODY])
async def test_a_server_that_leaves_two_requests_without_an_answer_is_left(answer: bytes | None) -> None:
    """It may be cut off from the others: the next one is asked. What a majority has answered in between clears it."""
    async with fake_server() as one, fake_server() as two, client_of(one, two) as client:
        one.answers, two.answers = {"x": answer}, {"x": b"fine"}
        for _ in range(2):
            with pytest.raises(Unanswered, match="x"):
                await client.request("x", timeout_s=0.01 if answer is None else LONG_S)
            client.note_majority()
        assert client.server == one.url
        for _ in range(2):
            with pytest.raises(Unanswered):
                await client.request("x", timeout_s=0.01 if answer is None else LONG_S)
        assert (await client.request("x", timeout_s=LONG_S)).payload == b"fine"
        assert client.server == two.url
    assert (one.connections, two.connections) == (1, 1)


async def test_a_server_is_not_left_for_what_was_long_ago_or_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests in the same moment are one, and a request of the last connection blames the server of then."""
    monkeypatch.setattr(limits, "UNANSWERED_SECONDS", 100.0)
    monkeypatch.setattr(limits, "UNANSWERED_FORGOTTEN_SECONDS", 200.0)
    async with fake_server() as server, client_of(server) as client:
        start = trio.current_time()
        client.note_silence(start - 1)
        for seconds in (0, 0, 0):
            client.note_silence(start + seconds)
        client.note_silence(start + 201)
        assert client.server
        monkeypatch.setattr(limits, "UNANSWERED_SECONDS", -1_000.0)
        client.note_silence(start + 202)
        with pytest.raises(Unanswered):
            await client.request("x", timeout_s=0.01)
        await server.wait(lambda: server.connections == 2)


async def test_a_server_that_answers_no_ping_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its connection open, as a paused process does."""
    async with fake_server() as one, fake_server() as two, client_of(one, two) as client:
        monkeypatch.setattr(limits, "QUIET_SECONDS", 0.01)
        monkeypatch.setattr(limits, "SILENCE_SECONDS", 0.01)
        one.answers_pings = False
        two.answers = {"x": b"fine"}
        await two.wait(lambda: two.connections == 1)
        monkeypatch.setattr(limits, "SILENCE_SECONDS", LONG_S)
        assert (await client.request("x", timeout_s=LONG_S)).payload == b"fine"


@pytest.mark.parametrize(
    "said", [b'INFO {"ldm":true}\r\n', b"-ERR 'Stale Connection'\r\n", b"nonsense\r\n", b"MSG x 1 999999999\r\n"]
)
async def test_a_server_that_will_stop_or_talks_nonsense_is_left(said: bytes) -> None:
    """A request that waits is told at once, and the next one goes to the other server."""
    async with fake_server() as one, fake_server() as two, client_of(one, two) as client:
        two.answers = {"x": b"fine"}
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Unanswered, match="lost"):
                    await client.request("x", timeout_s=LONG_S)

            nursery.start_soon(ask)
            await one.wait(lambda: bool(one.heard))
            await one.say(said)
        assert (await client.request("x", timeout_s=LONG_S)).payload == b"fine"
        assert client.server == two.url


async def test_the_server_asks_whether_we_live() -> None:
    async with fake_server() as server, client_of(server):
        await server.say(b"PING\r\n")
        await server.wait(lambda: server.pongs_heard == 1)


async def test_a_request_during_an_outage_ends_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a connection until then, and goes out if there is one."""
    async with fake_server() as server, client_of(server) as client:
        server.admits = b"-ERR 'Server Shutdown'\r\n"
        await server.cut()
        await server.wait(lambda: server.connections >= 2)
        client.publish_nowait("words", b"dropped")
        with pytest.raises(Unanswered, match="no server of NATS can be reached for x"):
            await client.request("x", timeout_s=0.01)
        server.admits, server.answers = b"", {"x": b"fine"}
        assert (await client.request("x", timeout_s=LONG_S)).payload == b"fine"
    assert ("words", b"dropped") not in server.heard


async def test_without_any_server_it_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPEN_SECONDS", 0.05)
    async with fake_server() as server:
        url = server.url
    with pytest.raises(Unanswered, match=f"for a start \\({url}: Connection refused\\)"):
        async with opened(NatsOptions(servers=[url]), name="node", uniform=first):
            pytest.fail("it opened")


async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one of the list is taken."""
    monkeypatch.setattr(limits, "CONNECT_SECONDS", 0.2)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with fake_server() as server:
        urls = [f"nats://127.0.0.1:{listener.socket.getsockname()[1]}", server.url]
        async with opened(NatsOptions(servers=urls), name="node", uniform=first) as client:
            assert client.server == server.url
    await listener.aclose()


async def test_a_message_over_the_servers_limit_is_not_sent() -> None:
    """The server would cut the connection. The refusal names the setting."""
    async with fake_server({"max_payload": 100}) as server, client_of(server) as client:
        server.answers = {"x": b"fine"}
        assert (await client.request("x", b"a" * 100, timeout_s=LONG_S)).payload == b"fine"
        with pytest.raises(StreamRefused, match="max_payload: 4MB") as refused:
            await client.request("x", b"a" * 80, headers=(("Key", "value"),), timeout_s=LONG_S)
        assert refused.value.key == "max_payload"
        assert (await client.request("x", b"b", timeout_s=LONG_S)).payload == b"fine"


async def test_a_server_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it has a bound; words are dropped long before."""
    monkeypatch.setattr(limits, "OUTBOX_BYTES_MAX", 2**23)
    async with fake_server({"max_payload": 2**24}) as server, client_of(server) as client:
        deadline = trio.current_time() + LONG_S
        questions = [await client.ask("x", b"a" * 2**20, deadline=deadline) for _ in range(8)]
        client.publish_nowait("words", b"dropped")
        with pytest.raises(Unanswered, match="does not read"):
            await questions[-1].wait(deadline)
        server.answers = {"y": b"fine"}
        assert (await client.request("y", timeout_s=LONG_S)).payload == b"fine"
    assert ("words", b"dropped") not in server.heard


# ---- who we are ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "fields"), [("me:p%40ss@", {"user": "me", "pass": "p@ss"}), ("t0ken@", {"auth_token": "t0ken"}), ("", {})]
)
async def test_the_url_says_who_we_are(user: str, fields: dict[str, str]) -> None:
    async with fake_server() as server:
        options = NatsOptions(servers=[server.url.replace("nats://", f"nats://{user}")])
        async with opened(options, name="node", uniform=first):
            said = server.introductions[0]
    assert {key: said[key] for key in said if key in ("user", "pass", "auth_token")} == fields


async def test_a_server_that_does_not_let_us_in_ends_the_start_and_no_secret_is_told() -> None:
    """The refusal names the key. Neither it, nor the log, nor a representation shows the password."""
    async with fake_server() as server:
        server.admits = b"-ERR 'Authorization Violation'\r\n"
        options = NatsOptions(servers=[server.url.replace("nats://", "nats://me:s3cret@")])
        with (
            structlog.testing.capture_logs() as lines,
            pytest.raises(StreamRefused, match="does not let us in: Authorization Violation") as refused,
        ):
            async with opened(options, name="node", uniform=first):
                pytest.fail("it opened")
    assert refused.value.key == "quorum.servers"
    assert [line["event"] for line in lines] == ["quorum_server_unreachable"]
    assert not any("s3cret" in text for text in (repr(options), repr(refused.value), str(refused.value), repr(lines)))


async def test_another_server_may_let_us_in() -> None:
    """The one that refuses is told in the log, and tried again later."""
    async with fake_server() as one, fake_server() as two:
        one.admits = b"-ERR 'Authorization Violation'\r\n"
        two.answers = one.answers = {"x": b"fine"}
        with structlog.testing.capture_logs() as lines:
            async with client_of(one, two) as client:
                assert client.server == two.url
                one.admits = b""
                await two.cut()
                await one.wait(lambda: one.connections == 2)
                assert (await client.request("x", timeout_s=LONG_S)).payload == b"fine"
    assert [(line["event"], line["server"]) for line in lines][:2] == [
        ("quorum_server_unreachable", one.url),
        ("quorum_server_connected", two.url),
    ]


async def test_a_server_that_we_may_not_use_is_passed_over() -> None:
    """Its settings are told in the log, once."""

    def check(_address: ServerAddress, info: Info) -> None:
        if info.version == "1.0.0":
            raise StreamRefused("too old", key="version")

    async with fake_server({"version": "1.0.0"}) as one, fake_server() as two:
        options = NatsOptions(servers=[one.url, two.url])
        with structlog.testing.capture_logs() as lines:
            async with opened(options, name="node", uniform=first, check=check) as client:
                assert client.server == two.url
        assert [line["event"] for line in lines] == ["quorum_server_unreachable", "quorum_server_connected"]
        with pytest.raises(StreamRefused, match="too old"):
            async with opened(NatsOptions(servers=[one.url]), name="node", uniform=first, check=check):
                pytest.fail("it opened")


async def test_an_outage_is_told_once_for_each_server() -> None:
    """And again after a server answered in between."""
    async with fake_server() as server:
        server.admits = b"-ERR 'Server Shutdown'\r\n"
        with structlog.testing.capture_logs() as lines, trio.move_on_after(LONG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(NatsClient(NatsOptions(servers=[server.url]), name="node", uniform=first).run)
                await server.wait(lambda: server.connections == 3)
                server.admits = b""
                await server.wait(lambda: len(server.subscriptions) == 1)
                server.admits = b"-ERR 'Server Shutdown'\r\n"
                await server.cut()
                seen = server.connections
                await server.wait(lambda: server.connections == seen + 3)
                nursery.cancel_scope.cancel()
    told = ["quorum_server_unreachable", "quorum_server_connected", "quorum_server_lost", "quorum_server_unreachable"]
    assert [line["event"] for line in lines] == told


async def test_servers_that_let_nobody_in_any_more_refuse_requests_until_they_do() -> None:
    """A password that was changed under us: requests say so at once, and go through when it is mended."""
    async with fake_server() as server, client_of(server) as client:
        server.answers = {"x": b"fine"}
        server.admits = b"-ERR 'Authorization Violation'\r\n"
        await server.say(b"-ERR 'User Authentication Expired'\r\n")
        await server.wait(lambda: server.connections >= 3)
        with pytest.raises(StreamRefused, match="does not let us in"):
            await client.request("x", timeout_s=LONG_S)
        server.admits = b""
        await server.wait(lambda: len(server.subscriptions) == 2)
        assert (await client.request("x", timeout_s=LONG_S)).payload == b"fine"


async def test_a_subject_that_we_may_not_use_is_refused_by_its_name() -> None:
    """The connection goes on, and so do other subjects."""
    async with fake_server() as server, client_of(server) as client:
        server.answers = {"y": b"fine"}
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(StreamRefused, match='Publish to "x"') as refused:
                    await client.request("x", timeout_s=LONG_S)
                assert refused.value.key == "permissions"

            nursery.start_soon(ask)
            await server.wait(lambda: bool(server.heard))
            await server.say(b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n")
        assert (await client.request("y", timeout_s=LONG_S)).payload == b"fine"
    assert server.connections == 1


async def ask_for_ever(client: NatsClient) -> None:
    while True:
        await client.request("y", timeout_s=LONG_S)


async def test_an_inbox_that_we_may_not_hear_refuses_every_request() -> None:
    """No answer could ever come."""
    async with fake_server() as server, client_of(server) as client:
        server.answers = {"y": b"fine"}
        await server.say(b"-ERR 'Permissions Violation for Subscription to \"_INBOX.a.*\"'\r\n")
        with pytest.raises(StreamRefused, match="_INBOX"):
            await ask_for_ever(client)


# ---- TLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "demanded"), [("tls", False), ("nats", True), ("nats", False)])
async def test_tls_begins_after_info(tmp_path: Path, scheme: str, demanded: bool) -> None:
    """The URL wants it, or the server demands it, or its authority is configured."""
    trusted, context = certificates(tmp_path)
    info = {"tls_required": demanded, "tls_available": True}
    async with fake_server(info, context=context) as server:
        options = NatsOptions(servers=[server.url.replace("nats", scheme, 1)], ca_file=str(trusted))
        server.answers = {"x": b"fine"}
        async with opened(options, name="node", uniform=first) as client:
            assert (await client.request("x", b"a" * 100_000, timeout_s=LONG_S)).payload == b"fine"


async def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    _, context = certificates(tmp_path)
    async with fake_server({"tls_required": True}, context=context) as server:
        with pytest.raises(StreamRefused, match="certificate that is not trusted") as refused:
            async with client_of(server):
                pytest.fail("it opened")
    assert refused.value.key == "quorum.ca_file"


@pytest.mark.parametrize(
    ("more", "key", "match"),
    [
        ({}, "quorum.servers", "has no TLS"),
        ({"ca_file": "none.pem"}, "quorum.ca_file", "none.pem cannot be used: No such file"),
        ({"certificate_file": "none.pem", "key_file": "k.pem"}, "quorum.certificate_file", "none.pem and k.pem cannot"),
    ],
)
async def test_tls_that_cannot_begin_is_refused_by_its_key(more: dict[str, str], key: str, match: str) -> None:
    """A server that should have TLS and has none may be somebody between; and files must be there."""
    async with fake_server({"tls_available": bool(more)}) as server:
        options = NatsOptions(servers=[server.url.replace("nats", "tls", 1)], **more)  # type: ignore[arg-type]
        with pytest.raises(StreamRefused, match=match) as refused:
            async with opened(options, name="node", uniform=first):
                pytest.fail("it opened")
    assert refused.value.key == key
    assert key not in refused.value.what, "the key is shown before it, once"


async def test_nothing_may_come_between_info_and_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody between could slip in lines that would count as the server's."""
    monkeypatch.setattr(limits, "OPEN_SECONDS", 0.1)
    trusted, context = certificates(tmp_path)
    async with fake_server({"tls_required": True}, context=context) as server:
        server.before_tls = b"PONG\r\n"
        with structlog.testing.capture_logs() as lines, pytest.raises(Unanswered):
            async with client_of(server, ca_file=str(trusted)):
                pytest.fail("it opened")
    assert any("between its INFO and TLS" in str(line.get("why")) for line in lines)


# ---- the list of servers ---------------------------------------------------------------------------------------------


async def test_an_address_of_ipv6() -> None:
    async with fake_server(host="::1") as server, client_of(server) as client:
        assert client.server == f"nats://[::1]:{server.port}"


@pytest.mark.parametrize("servers", [(), ("http://a",), ("nats://a", "nats://a:4222")])
async def test_a_list_that_names_no_servers_is_refused(servers: Sequence[str]) -> None:
    with pytest.raises(StreamRefused, match=r"no server|number 1|number 2|twice") as refused:
        async with opened(NatsOptions(servers=servers), name="node", uniform=first):
            pytest.fail("it opened")
    assert refused.value.key == "quorum.servers"
    assert "quorum." not in str(refused.value), "the key is shown before it, once"


async def test_what_the_user_of_a_client_raises_leaves_as_it_is() -> None:
    """Not in a group."""
    async with fake_server() as server:
        with pytest.raises(KeyError):
            async with client_of(server):
                raise KeyError("mine")


def test_messages_have_no_status_without_headers() -> None:
    assert Message("a", 1, "", b"", b"").status == 0
