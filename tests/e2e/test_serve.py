"""A leader as its operator sees it: it starts, stops, refuses to start, and survives bad clients and disks."""

from __future__ import annotations

import json
import resource
import signal
import socket
import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from tests.e2e import leader
from tests.e2e.client import Answer, Client, ConnectionLost
from tests.server.lanes.support import OTHER_PROTOCOLS

WRITER = ("scores:write", "scores:read", "users:write")


def client_of(node: leader.Leader) -> Client:
    """A backend's connection with every right that these tests need."""
    return Client(node.host, node.port, leader.token(*WRITER))


def viewer_of(node: leader.Leader) -> Any:
    """A viewer of the default board."""
    return open_websocket_url(f"ws://{node.host}:{node.port}/ws/scoreboard", subprotocols=["scoreboard.v1"])


async def increment(client: Client, user_id: str, action_id: str) -> Answer:
    """Increment once on the default board."""
    return await client.post("/scores/increment", {"userId": user_id, "actionId": action_id})


async def next_message(viewer: WebSocketConnection) -> Any:
    """The viewer's next message, decoded."""
    with trio.fail_after(leader.ALARM_SECONDS):
        return json.loads(await viewer.get_message())


async def read_forever(viewer: WebSocketConnection) -> None:
    """Read all messages that are there."""
    while True:
        await viewer.get_message()


async def closing_code(viewer: WebSocketConnection) -> int:
    """Read until the server closes; give the code."""
    with trio.fail_after(leader.ALARM_SECONDS), pytest.raises(ConnectionClosed) as closed:
        await read_forever(viewer)
    assert closed.value.reason is not None
    return int(closed.value.reason.code)


async def wait_refused(node: leader.Leader) -> None:
    """Wait until the leader refuses connections: it has begun to drain."""
    with trio.fail_after(leader.ALARM_SECONDS):
        while True:
            try:
                stream = await trio.open_tcp_stream(node.host, node.port)
            except OSError:
                return
            await stream.aclose()
            await trio.sleep(0.01)


async def start_post(node: leader.Leader, user_id: str, action_id: str) -> tuple[trio.SocketStream, bytes]:
    """Send an increment without the end of its body, and give that end: this request is surely in flight."""
    body = json.dumps({"userId": user_id, "actionId": action_id}).encode()
    head = (
        f"POST /scores/increment HTTP/1.1\r\nHost: {node.host}\r\nAuthorization: Bearer {leader.token(*WRITER)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    stream = await trio.open_tcp_stream(node.host, node.port)
    await stream.send_all(head + body[:-2])
    return stream, body[-2:]


async def read_to_end(stream: trio.SocketStream) -> bytes:
    """All bytes that the server still sends."""
    data = b""
    with trio.fail_after(leader.ALARM_SECONDS):
        try:
            async for part in stream:
                data += part
        except trio.BrokenResourceError:
            pass
    return data


async def test_the_ready_line_names_the_real_address_and_a_restart_keeps_everything(tmp_path: Path) -> None:
    """Port 0 becomes a real port that answers; after SIGTERM and a new start score and receipt are still there."""
    async with leader.serving(tmp_path / "data") as node:
        assert node.port != 0
        assert node.stdout() == f"scoreboard ready on http://127.0.0.1:{node.port}\n"
        async with client_of(node) as client:
            first = await increment(client, "alice", "a-1")
            assert (first.status, first.json()["newScore"]) == (200, 10)
        assert await node.terminate() == 0
    async with leader.serving(tmp_path / "data") as node, client_of(node) as client:
        again = (await increment(client, "alice", "a-1")).json()
        assert (again["applied"], again["seq"], again["epoch"]) == (False, first.json()["seq"], first.json()["epoch"])
        assert (await client.get("/scores/alice")).json()["score"] == 10
        assert (await client.get("/actions/a-1")).status == 200


async def test_a_viewer_sees_the_new_top(tmp_path: Path) -> None:
    """The first message is the board as it is, the next one comes by itself when an increment changes it."""
    async with leader.serving(tmp_path / "data") as node, client_of(node) as client, viewer_of(node) as viewer:
        snapshot = await next_message(viewer)
        assert (snapshot["type"], snapshot["entries"]) == ("scoreboard_snapshot", [])
        receipt = (await increment(client, "alice", "a-1")).json()
        update = await next_message(viewer)
        assert update["type"] == "scoreboard_update"
        assert update["entries"] == [{"userId": "alice", "score": 10, "rank": 1}]
        assert (update["epoch"], update["seq"]) == (receipt["epoch"], receipt["seq"])


async def test_sigterm_answers_what_is_in_flight_closes_viewers_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    """A request that was half sent at the signal is answered; viewers get 1012; a snapshot holds everything."""
    async with leader.serving(tmp_path / "data") as node:
        async with client_of(node) as client, viewer_of(node) as viewer:
            await next_message(viewer)
            assert (await increment(client, "alice", "a-1")).status == 200
            stream, rest = await start_post(node, "bob", "b-1")
            # Its answer shows that the leader has read everything that was sent before.
            assert (await client.get("/healthz")).status == 200
            node.signal(signal.SIGTERM)
            await wait_refused(node)
            await stream.send_all(rest)
            answer = await read_to_end(stream)
            assert answer.startswith(b"HTTP/1.1 200 ")
            seq = json.loads(answer.partition(b"\r\n\r\n")[2])["seq"]
            assert await closing_code(viewer) == 1012
        assert await node.wait() == 0
    assert [path.name for path in (tmp_path / "data" / "snapshots").glob("*.snapshot")] == [f"{seq:020}.snapshot"]


async def test_sigterm_ends_in_bounded_time_although_clients_do_not_read(tmp_path: Path) -> None:
    """A client asks for much and reads nothing, and a viewer reads nothing: neither can delay the end."""
    async with leader.serving(tmp_path / "data") as node:
        stalled = await stalled_connection(node)
        await stalled.send_all(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        viewer = await stalled_connection(node)
        await viewer.send_all(
            b"GET /ws/scoreboard HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await viewer.receive_some(12)) == b"HTTP/1.1 101"
        async with client_of(node) as client:
            for number in range(20):
                assert (await increment(client, "alice", f"a-{number}")).status == 200
        assert await node.terminate() == 0  # within ALARM_SECONDS
        await stalled.aclose()
        await viewer.aclose()


async def stalled_connection(node: leader.Leader) -> trio.SocketStream:
    """A connection with a receive buffer so small that the server soon can't send."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await sock.connect((node.host, node.port))
    return trio.SocketStream(sock)


async def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """While the drain waits for half a request, a second SIGTERM cuts it short; what was acknowledged is kept."""
    async with leader.serving(tmp_path / "data") as node:
        async with client_of(node) as client:
            assert (await increment(client, "alice", "a-1")).status == 200
        stream, _ = await start_post(node, "bob", "b-1")
        node.signal(signal.SIGTERM)
        await wait_refused(node)
        assert await node.terminate() == 0
        await stream.aclose()
    async with leader.serving(tmp_path / "data") as node, client_of(node) as client:
        assert (await client.get("/scores/alice")).json()["score"] == 10
        assert (await client.get("/scores/bob")).status == 404


async def test_a_second_leader_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """It exits 3 with one sentence; the first leader goes on serving."""
    async with leader.serving(tmp_path / "data") as node, client_of(node) as client:
        done = await leader.run("serve", "--bind", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))
        assert done.returncode == 3
        assert str(node.process.pid) in done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert done.stdout == b""
        assert (await increment(client, "alice", "a-1")).status == 200


async def test_other_protocols_are_refused_and_the_leader_goes_on_serving(tmp_path: Path) -> None:
    """Upgrades to WebSocket where there is none, and HTTP/2 in the clear: each ends its own connection alone."""
    async with leader.serving(tmp_path / "data") as node:
        for request, status in OTHER_PROTOCOLS.values():
            stream = await trio.open_tcp_stream(node.host, node.port)
            await stream.send_all(request)
            await stream.send_eof()
            assert (await read_to_end(stream)).startswith(b"HTTP/1.1 %d " % status)
            await stream.aclose()
            async with client_of(node) as client:
                assert (await client.get("/healthz")).status == 200
        assert node.process.returncode is None
        assert "Traceback" not in node.stderr()


async def test_a_damaged_log_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    """A flipped byte with good frames after it: exit 1, one message with file, offset and seq, no stack trace."""
    async with leader.serving(tmp_path / "data") as node:
        async with client_of(node) as client:
            for number in range(5):
                assert (await increment(client, "alice", f"a-{number}")).status == 200
        await node.kill()  # no checkpoint: the next start must read the whole log
    [segment] = (tmp_path / "data" / "log").glob("*.log")
    content = bytearray(segment.read_bytes())
    content[content.index(b"a-1")] ^= 0x01
    segment.write_bytes(content)
    with pytest.raises(leader.LeaderEnded) as ended:
        async with leader.serving(tmp_path / "data"):
            pass
    assert ended.value.code == 1
    assert ended.value.stdout == ""
    told = ended.value.stderr
    assert str(segment) in told
    assert "offset" in told
    assert "seq 2" in told
    assert "Traceback" not in told
    assert segment.read_bytes() == content, "a log that is refused is left as it is"


async def test_a_disk_that_fails_stops_the_leader_and_nobody_is_told_a_lie(tmp_path: Path) -> None:
    """Writes fail from some byte on: callers get "unknown", the leader exits 1, and acknowledged actions are kept."""
    acknowledged: set[str] = set()
    refused_with: list[str] = []

    async def backend(node: leader.Leader, name: str) -> None:
        async with client_of(node) as client:
            for batch in range(100):
                items = [{"userId": name, "actionId": f"{name}-{batch}-{item}"} for item in range(300)]
                try:
                    answer = await client.post("/scores/increment/batch", items)
                except ConnectionLost:
                    return  # between two requests: a request after the end finds a closed port
                if answer.status != 200:
                    assert answer.status == 503
                    assert "retry-after" in answer.headers
                    refused_with.append(answer.json()["error"]["code"])
                    return
                acknowledged.update(item["actionId"] for item in items)

    async with leader.serving(tmp_path / "data", extra={"SCOREBOARD_LIMITS_USER_PER_MINUTE": "1000000"}) as node:
        # From here on the kernel refuses every write past this byte of any file.
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (300_000, 300_000))
        async with trio.open_nursery() as nursery:
            for name in ("alice", "bob", "carol"):
                nursery.start_soon(backend, node, name)
        assert await node.wait() == 1
        assert f"{1:020}.log" in node.stderr()
        assert "Traceback" not in node.stderr()
    assert acknowledged
    assert "OUTCOME_UNKNOWN" in refused_with
    assert set(refused_with) <= {"OUTCOME_UNKNOWN", "OVERLOADED"}
    done = await leader.run("log", "dump", "--data-dir", str(tmp_path / "data"))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    recovered = [event["actionId"] for event in events if "actionId" in event]
    assert len(recovered) == len(events) - 1, "all but the board"
    assert len(recovered) == len(set(recovered))
    assert acknowledged <= set(recovered)
    async with leader.serving(tmp_path / "data") as node, client_of(node) as client:
        for name in ("alice", "bob", "carol"):
            counted = sum(action_id.startswith(name) for action_id in recovered)
            assert (await client.get(f"/scores/{name}")).json()["score"] == 10 * counted


async def test_the_signing_key_is_private_and_secrets_are_never_printed(tmp_path: Path) -> None:
    """The first start makes signing.key, mode 600; the leader prints neither the key nor a token."""
    no_secret = {"SCOREBOARD_AUTH_JWT_SECRET": ""}
    data = tmp_path / "data"
    async with leader.serving(data, extra=no_secret) as node:
        key = data / "signing.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        bearer = (await leader.run("token", "--sub", "backend", "--data-dir", str(data))).stdout.decode().strip()
        async with Client(node.host, node.port, bearer) as client:
            assert (await increment(client, "alice", "a-1")).status == 200
        forged = leader.token(*WRITER, secret="x" * 32)  # a key that the leader does not know
        async with Client(node.host, node.port, forged) as client:
            refused = await increment(client, "alice", "a-2")
            assert refused.status == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
        assert await node.terminate() == 0
        said = node.stdout() + node.stderr()
        for secret in (key.read_text().strip(), bearer, bearer.rpartition(".")[2], forged):
            assert secret not in said


async def test_the_welcome_has_a_curl_that_works(tmp_path: Path) -> None:
    """--welcome prints the live page's address and a command; pasted twice it counts twice."""
    extra = {"SCOREBOARD_AUTH_JWT_SECRET": ""}
    async with leader.serving(tmp_path / "data", arguments=["--welcome"], extra=extra) as node:
        await node.wait_stdout("\ncurl ")
        assert f"http://127.0.0.1:{node.port}/\n" in node.stdout()
        for score in (10, 20):
            arguments = await pasted(node.stdout())
            assert f"http://127.0.0.1:{node.port}/scores/increment" in arguments
            pairs = (value.split(": ", 1) for value in values_of("-H", arguments))
            headers = {name.lower(): value for name, value in pairs}
            async with Client(node.host, node.port) as client:
                [body] = values_of("-d", arguments)
                answer = await client.request("POST", "/scores/increment", body.encode(), headers)
            assert (answer.status, answer.json()["newScore"]) == (200, score)
        assert headers["authorization"].removeprefix("Bearer ") not in node.stderr()


async def pasted(said: str) -> list[str]:
    """The arguments that a shell would give to curl, which need not be installed for this."""
    [line] = [line for line in said.splitlines() if line.startswith("curl ")]
    script = f"curl() {{ printf '%s\\n' \"$@\"; }}; {line}"
    done = await trio.run_process(["sh", "-c", script], capture_stdout=True)
    return done.stdout.decode().splitlines()


def values_of(option: str, arguments: list[str]) -> list[str]:
    """The values of an option that may come several times."""
    return [value for before, value in pairwise(arguments) if before == option]
