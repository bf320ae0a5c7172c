"""Hostile viewers: wrong frames, wrong handshakes, and many viewers that do not read.

After a good handshake, the server says why it ends a connection: with a close frame and its code.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

from server.bounds import VIEWER_MESSAGE_BYTES_MAX, VIEWER_SAYS_BYTES_MAX
from server.http.websocket import BINARY, CLOSE, CONTINUATION, MASKED, PING, PONG, TEXT
from tests.hostile.attack import Attack, each_refused, head
from tests.hostile.honest import KEY
from tests.hostile.target import HONEST, ORIGIN, Reply, Target, read_to_end, replies_in, send, wait_until
from tests.server.live.client_frames import client_frame, take_server_frame

CROWD = 700
PER_ADDRESS_MAX = 500
"""The default bound of viewers from one address."""

DEAF = 300
WATCH = "GET /ws/scoreboard HTTP/1.1"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
HANDSHAKE = head(WATCH, *UPGRADE)


def opened(target: Target, receive_buffer: int | None = None) -> socket.socket:
    """A viewer's connection: its request is sent. Whoever sends frames waits for the answer first."""
    connection = target.connect(receive_buffer=receive_buffer)
    assert send(connection, HANDSHAKE)
    return connection


def accepted(target: Target, receive_buffer: int | None = None) -> socket.socket:
    """A viewer's connection whose answer is here, and still to be read."""
    connection = opened(target, receive_buffer)
    first = connection.recv(13, socket.MSG_PEEK | socket.MSG_WAITALL)
    assert first == b"HTTP/1.1 101 ", first
    return connection


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """The frames that came after the 101."""
    answer, _, rest = data.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    buffer = bytearray(rest)
    frames = []
    while (frame := take_server_frame(buffer)) is not None:
        frames.append(frame)
    return frames


def closed_with(connection: socket.socket) -> int | None:
    """Read to the end; give the code of the close frame, None if there was none."""
    codes = [payload for opcode, payload in frames_of(read_to_end(connection)) if opcode == CLOSE]
    return int.from_bytes(codes[0][:2], "big") if codes else None


def bad_frames(target: Target) -> None:
    """Unmasked, wrongly fragmented, of a giant length, with reserved bits, no UTF-8: each gets its close code."""
    big = VIEWER_MESSAGE_BYTES_MAX + 1
    frames: dict[str, tuple[bytes, int]] = {
        "unmasked": (b"\x81\x02hi", 1002),
        "an unmasked ping": (b"\x89\x00", 1002),
        "a fragmented ping": (client_frame(PING, b"x", fin=False), 1002),
        "a fragmented close": (client_frame(CLOSE, b"\x03\xe8", fin=False), 1002),
        "a ping of 126 bytes": (client_frame(PING, b"x" * 126), 1002),
        "a close of 4 KiB": (client_frame(CLOSE, b"\x03\xe8" + b"x" * 4_096), 1002),
        "reserved bit 1": (client_frame(TEXT, b"x", reserved=0x40), 1002),
        "reserved bit 2": (client_frame(TEXT, b"x", reserved=0x20), 1002),
        "reserved bit 3": (client_frame(PING, b"", reserved=0x10), 1002),
        "opcode 3": (client_frame(3, b"x"), 1002),
        "opcode 15": (client_frame(15, b"x"), 1002),
        "a length of 2^63 - 1": (b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4), 1009),
        "a length of 2^64 - 1": (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
        "a length of 2^32": (b"\x82\xff" + (2**32).to_bytes(8, "big") + bytes(4), 1009),
        "five bytes, said in eight": (bytes([0x82, MASKED | 127]) + (5).to_bytes(8, "big") + bytes(9), 1002),
        "five bytes, said in two": (bytes([0x82, MASKED | 126]) + (5).to_bytes(2, "big") + bytes(9), 1002),
        "a byte too much": (client_frame(BINARY, b"x" * big), 1009),
        "too much, in fragments": (
            client_frame(TEXT, b"x" * 1000, fin=False) + client_frame(CONTINUATION, b"x" * 1000, fin=False) * 9,
            1009,
        ),
        "a fragment of nothing": (client_frame(CONTINUATION, b"x"), 1002),
        "a message in a message": (client_frame(TEXT, b"x", fin=False) + client_frame(TEXT, b"x"), 1002),
        "no UTF-8": (client_frame(TEXT, b"\xff"), 1007),
        "UTF-8, cut by its end": (client_frame(TEXT, b"\xe2\x82"), 1007),
        "a close of one byte": (client_frame(CLOSE, b"\x03"), 1002),
        "a close with 1005": (client_frame(CLOSE, b"\x03\xed"), 1002),
        "a close with 0": (client_frame(CLOSE, b"\x00\x00"), 1002),
        "a close with 65,535": (client_frame(CLOSE, b"\xff\xff"), 1002),
        "a close whose reason is no UTF-8": (client_frame(CLOSE, b"\x03\xe8\xff"), 1007),
        "a request": (head("GET /scoreboard/top HTTP/1.1"), 1002),
        "zeros": (bytes(5000), 1002),
        "fragments without an end": (
            client_frame(TEXT, fin=False) + client_frame(CONTINUATION, fin=False) * 5_000,
            1008,
        ),
        "pings without an end": (client_frame(PING, b"x" * 125) * (VIEWER_SAYS_BYTES_MAX // 125), 1008),
        "pongs without an end": (client_frame(PONG) * VIEWER_SAYS_BYTES_MAX, 1008),
    }
    for name, (data, code) in frames.items():
        with accepted(target) as connection:
            send(connection, data)
            frames_read = frames_of(read_to_end(connection))
        codes = [int.from_bytes(payload[:2], "big") for opcode, payload in frames_read if opcode == CLOSE]
        assert codes == [code], f"{name}: closed with {codes}"


def torn_frames(target: Target) -> None:
    """Frames in two pieces, torn at every byte: the server reads each once."""
    data = client_frame(PING, b"torn") + client_frame(TEXT, b"hello") + client_frame(CLOSE, b"\x03\xe8")
    for cut in range(len(data) + 1):
        with accepted(target) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            send(connection, data[:cut])
            send(connection, data[cut:])
            frames = frames_of(read_to_end(connection))
        assert [payload for opcode, payload in frames if opcode == PONG] in ([b"torn"], []), frames
        assert frames[-1] == (CLOSE, b"\x03\xe8"), frames


def bad_handshakes(target: Target) -> None:
    """Another origin, no key, two keys, an old version, a body, HTTP/1.0, an unknown board: refused in plain HTTP."""
    key, version = f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"
    plain = UPGRADE[:2]
    each_refused(
        target,
        {
            "another origin": (head(WATCH, *UPGRADE, "Origin: https://evil.example"), 403),
            "an origin that begins alike": (head(WATCH, *UPGRADE, f"Origin: {ORIGIN}.evil.example"), 403),
            "an origin without TLS": (head(WATCH, *UPGRADE, f"Origin: {ORIGIN.replace('https', 'http')}"), 403),
            "an origin with a port": (head(WATCH, *UPGRADE, f"Origin: {ORIGIN}:8443"), 403),
            "two origins": (head(WATCH, *UPGRADE, f"Origin: {ORIGIN}", "Origin: https://evil.example"), 403),
            "null as origin": (head(WATCH, *UPGRADE, "Origin: null"), 403),
            "an empty origin": (head(WATCH, *UPGRADE, "Origin:"), 403),
            "no key": (head(WATCH, *plain, version), 400),
            "two keys": (head(WATCH, *UPGRADE, key), 400),
            "a key of 15 bytes": (head(WATCH, *plain, version, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"), 400),
            "a key that is no base64": (head(WATCH, *plain, version, f"Sec-WebSocket-Key: {'!' * 24}"), 400),
            "version 8": (head(WATCH, *plain, key, "Sec-WebSocket-Version: 8"), 426),
            "no version": (head(WATCH, *plain, key), 426),
            "no upgrade": (head(WATCH, version, key), 426),
            "no connection": (head(WATCH, "Upgrade: websocket", version, key), 426),
            "HTTP/1.0": (head(WATCH.replace("1.1", "1.0"), *UPGRADE), 400),
            "a body": (head(WATCH, *UPGRADE, "Content-Length: 5") + b"hello", 400),
            "a chunked body": (head(WATCH, *UPGRADE, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
            "another path": (head("GET /ws HTTP/1.1", *UPGRADE), 404),
            "no such board": (head(WATCH.replace("scoreboard ", "scoreboard?boardId=x "), *UPGRADE), 400),
            "a board of controls": (head(WATCH.replace("scoreboard ", "scoreboard?boardId=%00 "), *UPGRADE), 400),
            "two boards": (head(WATCH.replace("board ", "board?boardId=main&boardId=main "), *UPGRADE), 400),
        },
    )
    deflate = head(WATCH, *UPGRADE, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    good = deflate.replace(b"Host: x\r\n", b"Host: x\r\nOrigin: " + ORIGIN.encode() + b"\r\n")
    with target.connect() as connection:
        send(connection, good)
        data = connection.recv(65536)
        send(connection, client_frame(TEXT, b"\x00" * 100, reserved=0x40))
        data += read_to_end(connection)
    assert b"sec-websocket-extensions" not in data.lower()
    assert frames_of(data)[-1][1][:2] == (1002).to_bytes(2, "big")


def too_many_viewers(target: Target) -> None:
    """700 viewers from one address, where 500 are allowed: the others are told to come back later."""
    connections = [opened(target) for _ in range(CROWD)]
    try:
        firsts = Counter(_status(connection) for connection in connections)
        assert firsts == {101: PER_ADDRESS_MAX, 503: CROWD - PER_ADDRESS_MAX}
        [reply] = target.ask(head("GET /healthz HTTP/1.1"), source=HONEST)
        assert reply.status == 200
    finally:
        for connection in connections:
            connection.close()


def _status(connection: socket.socket) -> int:
    first = connection.recv(12)
    assert first.startswith(b"HTTP/1.1 "), first
    return int(first[9:12])


def deaf_and_dumb_viewers(target: Target) -> None:
    """300 viewers that neither read nor answer a ping: the server closes them, and nothing waits for them."""
    before = target.open_files()
    connections = [opened(target, receive_buffer=2048) for _ in range(DEAF)]
    try:
        target.wait_accepted()
        longest = target.seconds("VIEWER_SILENCE_SECONDS_MAX")
        wait_until(lambda: target.open_files() <= before, "silent viewers are dropped", longest + 60)
    finally:
        for connection in connections:
            connection.close()


def pings_that_nobody_reads_the_answers_of(target: Target) -> None:
    """Viewers that ping as fast as they can, and read no pong: the server closes them after 16 KiB."""
    pings = client_frame(PING, b"x" * 125) * 10_000
    connections = [accepted(target, receive_buffer=2048) for _ in range(100)]
    try:
        for connection in connections:
            send(connection, pings)
        assert {closed_with(connection) for connection in connections} <= {1008, None}
    finally:
        for connection in connections:
            connection.close()


def kept_connections_that_change_their_mind(target: Target) -> None:
    """Requests, then an upgrade on the same connection, then frames: each part gets its own answer."""
    asks = [head("GET /scoreboard/top HTTP/1.1"), head("GET /healthz HTTP/1.1"), head("GET /nowhere HTTP/1.1")]
    for count in range(60):
        with target.connect() as connection:
            before = [asks[(count + number) % 2] for number in range(count % 3)]
            send(connection, b"".join(before) + HANDSHAKE)
            data = b""
            while b"HTTP/1.1 101 " not in data:
                data += connection.recv(65536)
            send(connection, client_frame(CLOSE, b"\x03\xe8"))
            data += read_to_end(connection)
        plain, separator, rest = data.partition(b"HTTP/1.1 101 ")
        replies: list[Reply] = replies_in(plain)
        assert [reply.status for reply in replies] == [200] * len(before)
        assert frames_of(separator + rest)[-1] == (CLOSE, b"\x03\xe8")


_RUNS: list[tuple[str, Callable[[Target], None]]] = [
    ("bad frames", bad_frames),
    ("torn frames", torn_frames),
    ("bad handshakes", bad_handshakes),
    ("too many viewers", too_many_viewers),
    ("deaf and dumb viewers", deaf_and_dumb_viewers),
    ("pings that nobody reads the answers of", pings_that_nobody_reads_the_answers_of),
    ("kept connections that change their mind", kept_connections_that_change_their_mind),
]

VIEWERS = tuple(Attack(name, run.__doc__ or "", run) for name, run in _RUNS)
