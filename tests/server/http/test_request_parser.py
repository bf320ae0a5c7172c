"""What comes in is a whole and correct request, or is refused before anyone has seen any of it."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.http.messages import Refused
from server.http.request_parser import IncomingRequest, RequestParser, wire_request

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


Requests = list[tuple[IncomingRequest, bytes]]


def read_all(data: bytes, *, piece: int = 2**16, head_max: int = 16_384, body_max: int = 2**20) -> Requests:
    """Read requests from `data`, which comes in pieces, until it is used up. Raises what the parser raises."""
    parser = RequestParser(head_max, body_max)
    found: Requests = []
    inbound: IncomingRequest | None = None
    for start in range(0, len(data), piece):
        parser.receive(data[start : start + piece])
        while True:
            if inbound is None:
                inbound = parser.next_head()
                if inbound is None:
                    break
            body = parser.next_body()
            if body is None:
                break
            found.append((inbound, body))
            inbound = None
    assert inbound is None, "a body is missing"
    assert not parser.begun, "a head is missing"
    return found


def refusal(data: bytes, **limits: int) -> tuple[int, str]:
    """The refusal of `data`, which must be the same however it comes in."""
    outcomes = set()
    for piece in (1, 7, 2**16):
        with pytest.raises(Refused) as refused:
            read_all(data, piece=piece, **limits)
        outcomes.add((refused.value.status, refused.value.code))
    assert len(outcomes) == 1
    return outcomes.pop()


ACCEPTED: list[tuple[bytes, list[tuple[str, str, bytes]]]] = [
    (GET, [("GET", "/", b"")]),
    (b"\r\n\r\n" + GET, [("GET", "/", b"")]),
    (GET + GET, [("GET", "/", b""), ("GET", "/", b"")]),
    (b"HEAD /a?b=c&d=%20 HTTP/1.0\r\n\r\n", [("HEAD", "/a?b=c&d=%20", b"")]),
    (b"GET http://x:80/a?b HTTP/1.1\r\nHost: y\r\n\r\n", [("GET", "/a?b", b"")]),
    (b"GET http://x HTTP/1.1\r\nHost: y\r\n\r\n", [("GET", "/", b"")]),
    (b"GET http://x?q HTTP/1.1\r\nHost: y\r\n\r\n", [("GET", "/?q", b"")]),
    (b"DELETE /scores/%C3%A4 HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", [("DELETE", "/scores/%C3%A4", b"")]),
    (POST + b"\r\n" + GET, [("POST", "/p", b""), ("GET", "/", b"")]),
    (POST + b"Content-Length: 3\r\n\r\nabc" + GET, [("POST", "/p", b"abc"), ("GET", "/", b"")]),
    (POST + b"content-length: 0003\r\n\r\n\r\n\r", [("POST", "/p", b"\r\n\r")]),
    (POST + b"Content-Length: 0\r\n\r\n", [("POST", "/p", b"")]),
    (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + GET, [("POST", "/p", b"abc"), ("GET", "/", b"")]),
    (CHUNKED + b"0\r\n\r\n", [("POST", "/p", b"")]),
    (CHUNKED + b"A;x=y\r\n" + b"\r\n" * 6 + b"0\r\nTrailer: z\r\n\r\n" + GET,
     [("POST", "/p", b"\r\n" * 5), ("GET", "/", b"")]),
    (CHUNKED + b"8\r\n0\r\n\r\nGET\r\n0\r\n\r\n", [("POST", "/p", b"0\r\n\r\nGET")]),
    (b"GET / HTTP/1.1\r\nHost:\r\nX:  \xe4 \t\r\n\r\n", [("GET", "/", b"")]),
    (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n", [("GET", "/", b"")]),
    (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", [("GET", "/", b"")]),
]  # fmt: skip


@pytest.mark.parametrize(("data", "requests"), ACCEPTED)
@pytest.mark.parametrize("piece", [1, 2, 5, 2**16])
def test_requests_come_out_whole_in_whatever_pieces_they_come_in(
    data: bytes, requests: list[tuple[str, str, bytes]], piece: int
) -> None:
    """Where one request ends and the next begins does not hang on how the network cut them."""
    assert [(i.head.method, i.head.target, body) for i, body in read_all(data, piece=piece)] == requests


def with_header(line: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"


BAD = (400, "INVALID_REQUEST")
TOO_LARGE = (413, "PAYLOAD_TOO_LARGE")

REFUSED: dict[str, tuple[bytes, tuple[int, str]]] = {
    # what is not HTTP at all
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD),
    "zeros": (bytes(20), BAD),
    "an unknown method": (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "a method in lower case": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    # request lines
    "HTTP/0.9": (b"GET /\r\n\r\n", BAD),
    "HTTP/0.9 with a header": (b"GET /\r\nHost: x\r\n\r\n", BAD),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", BAD),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", BAD),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
    "RTSP": (b"OPTIONS / RTSP/1.0\r\nHost: x\r\n\r\n", BAD),
    "ICE": (b"SOURCE / ICE/1.0\r\nHost: x\r\n\r\n", BAD),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "tabs": (b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "a space at the start": (b" GET / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "a space at the end": (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", BAD),
    "a space in the target": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "a control character in the target": (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "a target that is not ASCII": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "a fragment": (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "no path": (b"GET abc HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "only a query": (b"GET ?a HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "an address without a host": (b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "an address with a user": (b"GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "an address with a broken host": (b"GET http://[x/ HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "another scheme": (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
    # lines
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", BAD),
    "bare LF between headers": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", BAD),
    "bare LF at the end": (b"GET / HTTP/1.1\r\nHost: x\r\n\n", BAD),
    "bare CR": (with_header(b"A: b\rc"), BAD),
    "two CR": (b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", BAD),
    "a folded header": (with_header(b"A: b\r\n c"), BAD),
    "a header that begins with a space": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", BAD),
    # header names and values
    "a space before the colon": (with_header(b"A : b"), BAD),
    "no name": (with_header(b": b"), BAD),
    "no colon": (with_header(b"Abc"), BAD),
    "a bad name": (with_header(b"A(b): c"), BAD),
    "a name that is not ASCII": (with_header(b"\xc3\x84: b"), BAD),
    "NUL in a value": (with_header(b"A: b\0c"), BAD),
    "a control character in a value": (with_header(b"A: b\x01c"), BAD),
    "a vertical tab in a value": (with_header(b"A: b\x0bc"), BAD),
    "DEL in a value": (with_header(b"A: b\x7fc"), BAD),
    # Host
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", BAD),
    "two Hosts": (with_header(b"Host: y"), BAD),
    "a Host that is none": (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", BAD),
    "a Host with a space": (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", BAD),
    # how long the body is
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", BAD),
    "two equal lengths": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", BAD),
    "a list of lengths": (POST + b"Content-Length: 1, 1\r\n\r\na", BAD),
    "a signed length": (POST + b"Content-Length: +1\r\n\r\na", BAD),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\na", BAD),
    "a hexadecimal length": (POST + b"Content-Length: 0x1\r\n\r\na", BAD),
    "an empty length": (POST + b"Content-Length:\r\n\r\na", BAD),
    "length, then chunked": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    "chunked, then length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", BAD),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD),
    "gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", BAD),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", BAD),
    "no coding": (POST + b"Transfer-Encoding:\r\n\r\n", BAD),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    # chunks
    "a bad chunk size": (CHUNKED + b"xyz\r\na\r\n0\r\n\r\n", BAD),
    "a chunk size with a sign": (CHUNKED + b"+1\r\na\r\n0\r\n\r\n", BAD),
    "a chunk size with a space": (CHUNKED + b"1 \r\na\r\n0\r\n\r\n", BAD),
    "a chunk size beyond 64 bits": (CHUNKED + b"ffffffffffffffffff\r\na\r\n0\r\n\r\n", BAD),
    "a chunk longer than its size": (CHUNKED + b"1\r\nabc\r\n0\r\n\r\n", BAD),
    "chunks with bare LF": (CHUNKED + b"1\na\n0\n\n", BAD),
    "LF in a chunk extension": (CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n", BAD),
    "a length in the trailers": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", BAD),
    "a bad trailer": (CHUNKED + b"0\r\nA : b\r\n\r\n", BAD),
    # upgrades
    "h2c": (with_header(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"), BAD),
    "h2c in a list": (with_header(b"Upgrade: foo, H2C"), BAD),
    "an upgrade with a body": (with_header(b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5"), BAD),
    "an upgrade with chunks": (with_header(b"Upgrade: websocket\r\nTransfer-Encoding: chunked"), BAD),
    # sizes that no limit of a test makes smaller
    "a length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", TOO_LARGE),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_correct_is_refused(data: bytes, expected: tuple[int, str]) -> None:
    """In one piece, in few, and byte by byte."""
    assert refusal(data) == expected


@pytest.mark.parametrize(("data", "expected"), REFUSED.values(), ids=REFUSED)
def test_the_second_request_is_held_to_the_same(data: bytes, expected: tuple[int, str]) -> None:
    """A connection earns no trust with its first request."""
    assert refusal(POST + b"Content-Length: 2\r\n\r\nok" + data) == expected


def test_a_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    """Also while its end is not in sight, and also when its end came with the same bytes."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n"
    fits = head % (b"a" * (200 - len(head) + 2))
    assert len(fits) == 200
    assert len(read_all(fits, head_max=200)) == 1
    assert refusal(fits.replace(b"a\r", b"aa\r"), head_max=200) == (431, "INVALID_REQUEST")
    assert refusal(b"GET /" + b"a" * 300, head_max=200) == (431, "INVALID_REQUEST")


def test_a_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    """By its announced length before any of it came, by what came when it is chunked."""
    body = b"x" * 100
    assert read_all(POST + b"Content-Length: 100\r\n\r\n" + body, body_max=100)[0][1] == body
    assert refusal(POST + b"Content-Length: 101\r\n\r\n", body_max=100) == TOO_LARGE
    chunk = b"32\r\n" + body[:50] + b"\r\n"
    assert read_all(CHUNKED + chunk + chunk + b"0\r\n\r\n", body_max=100)[0][1] == body
    assert refusal(CHUNKED + b"32\r\n" + body[:50] + b"\r\n33\r\n" + body[:51], body_max=100) == TOO_LARGE


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param((b"1;" + b"e" * 1_000 + b"\r\na\r\n") * 100, id="extensions"),
        pytest.param(b"2\r\nxx\r\n" * 20_000, id="tiny chunks"),
        pytest.param(b"20000\r\n" + b"\r\n" * 2**16, id="empty lines in a chunk"),
        pytest.param(b"0\r\n" + b"Trailer: z\r\n" * 10_000, id="trailers"),
    ],
)
def test_a_body_ends_before_its_framing_is_the_larger_part(endless: bytes) -> None:
    """Chunk sizes, extensions and trailers are bytes that count for no body: they are bounded too."""
    assert refusal(CHUNKED + endless) == TOO_LARGE


def test_many_chunks_of_a_usual_size_are_welcome() -> None:
    """A client that writes item by item sends a chunk for each, of some hundred bytes."""
    [(_, body)] = read_all(CHUNKED + b"64\r\n%b\r\n" % (b"x" * 100) * 20_000 + b"0\r\n\r\n", body_max=2**21)
    assert len(body) == 2_000_000
    [(_, body)] = read_all(CHUNKED + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
    assert len(body) == 10_000
    [(_, body)] = read_all(CHUNKED + b"4e20\r\n" + b"\r\n" * 10_000 + b"\r\n0\r\n\r\n")
    assert body == b"\r\n" * 10_000


def test_a_body_costs_what_it_is_long_however_it_was_cut() -> None:
    """Parts are not kept apart: each would cost many times the two bytes that a client may make it."""
    parser = RequestParser()
    parser.receive(CHUNKED + b"2\r\nxx\r\n" * 10_000)
    assert parser.next_head() is not None
    tracemalloc.start()
    try:
        assert parser.next_body() is None
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parser.held == 20_000
    assert kept < 2 * parser.held


def test_what_is_kept_is_bounded_and_told() -> None:
    """`held` is what a connection costs."""
    parser = RequestParser()
    parser.receive(CHUNKED + b"5\r\nab")
    assert parser.held == len(CHUNKED) + 5
    assert parser.next_head() is not None
    assert parser.next_body() is None
    assert parser.held == 2
    parser.receive(b"cde\r\n0\r\n\r\nGET")
    assert parser.next_body() == b"abcde"
    assert parser.held == 3


def test_empty_lines_are_not_the_beginning_of_a_request() -> None:
    """Some clients send one after a body; it must not start the clock of the next head."""
    parser = RequestParser()
    parser.receive(b"\r\n\r\n")
    assert not parser.begun
    parser.receive(b"G")
    assert parser.begun


def test_what_follows_the_head_is_handed_over() -> None:
    """A lane that goes on by itself gets every byte that was read too much."""
    parser = RequestParser()
    parser.receive(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n\x81\x00rest")
    assert parser.next_head() is not None
    assert parser.take_rest() == b"\x81\x00rest"
    assert parser.held == 0


@pytest.mark.parametrize(
    ("head", "keep_alive", "expects_continue"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", True, False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\nConnection: keep-alive\r\n", False, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", False, False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n", True, True),
        (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n", False, False),
    ],
)
def test_what_the_client_wants_of_the_connection(head: bytes, keep_alive: bool, expects_continue: bool) -> None:
    """One `close` closes, whatever else is said; HTTP/1.0 is closed after each answer."""
    ((inbound, _),) = read_all(head + b"\r\n")
    assert (inbound.keep_alive, inbound.expects_continue) == (keep_alive, expects_continue)


def test_a_request_is_written_anew() -> None:
    """What is about the connection ends here; the body has one length, and its trailers are gone."""
    ((inbound, body),) = read_all(
        b"POST http://a/b?c HTTP/1.1\r\nHost: x\r\nConnection: upgrade, x\r\nUpgrade: foo\r\nContent-Length: 0\r\n"
        b"Keep-Alive: 5\r\nTE: trailers\r\nExpect: 100-continue\r\nAccept: */*\r\nX:\xe4\r\n\r\n"
    )
    assert wire_request(inbound, body, last=True) == (
        b"POST /b?c HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx: \xe4\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    ((inbound, body),) = read_all(CHUNKED + b"1\r\na\r\n1\r\nb\r\n0\r\nT: u\r\n\r\n")
    assert wire_request(inbound, body, last=False) == b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"


def test_an_inbound_gives_its_parts() -> None:
    """Headers that came in several lines are one list."""
    ((inbound, _),) = read_all(b"GET /a/b?c?d HTTP/1.1\r\nHost: x\r\nX-F: a, b\r\nX-F: C\r\n\r\n")
    assert inbound.path == "/a/b"
    assert inbound.header("x-f") == "a, b, C"
    assert inbound.head.tokens("x-f") == ["a", "b", "c"]
    assert inbound.header("x-g") == ""
    assert inbound.head.tokens("x-g") == []


def h11_reads(data: bytes) -> list[tuple[str, str, bytes]]:
    """What h11 makes of requests, one connection each. Raises what h11 raises."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * 16_384)
    connection.receive_data(data)
    requests, body = [], b""
    while (event := connection.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.Request):
            requests.append((event.method.decode(), event.target.decode()))
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return [(*requests[0], body)]
    raise AssertionError("the request is not complete")


VALID = [data for data, _ in ACCEPTED] + [with_header(b"Connection: close"), CHUNKED + b"1\r\na\r\n0\r\nA: b\r\n\r\n"]


BYTES = st.binary(max_size=4) | st.sampled_from([b"\r\n", b"\0", b" :"])


@given(
    data=st.sampled_from(VALID), changes=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3), BYTES), max_size=4)
)
@example(data=GET, changes=[(0, 0, b"\r\n")])
def test_whatever_passes_is_a_request_to_h11_too(data: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    """Random bytes are cut out and put in: what is not refused means the same to the next HTTP server."""
    for position, cut, put in changes:
        data = data[:position] + put + data[position + cut :]
    parser = RequestParser(body_bytes_max=1_000)
    parser.receive(data)
    with suppress(Refused):
        while (inbound := parser.next_head()) is not None and (body := parser.next_body()) is not None:
            written = wire_request(inbound, body, last=False)
            assert h11_reads(written) == [(inbound.head.method, inbound.head.target, body)]
