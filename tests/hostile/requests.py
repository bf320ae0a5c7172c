"""Requests that are wrong in every way that we could think of: each gets exactly one answer, a refusal."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable

from server.bounds import BODY_BYTES_MAX, HEAD_BYTES_MAX
from tests.e2e.leader import token
from tests.hostile.attack import Attack, Statuses, each_refused, head, post, put
from tests.hostile.target import Target
from tests.server.lanes.support import OTHER_PROTOCOLS

ONE = "/scores/increment"
BATCH = "/scores/increment/batch"
USER = "/users/alice"
PACKED = "application/msgpack"
GOOD = b'{"userId":"mallory","actionId":"m-1"}'
NOISE_SEED = 20_260
NOISES = 300
MANY = 2**20

Requests = dict[str, tuple[bytes, Statuses]]


def oversized_everything(target: Target) -> None:
    """Heads, lines, bodies, chunks, batches, ids, queries, tokens: each a little or a lot too large."""
    bearer = token("admin")
    chunked = head(f"POST {ONE} HTTP/1.1", f"Authorization: Bearer {bearer}", "Transfer-Encoding: chunked")
    huge = "x" * 2 * HEAD_BYTES_MAX
    item = {"userId": "mallory", "actionId": "m"}
    long_id = {"userId": "x" * 129, "actionId": "m"}
    each_refused(
        target,
        {
            "a long path": (head(f"GET /{huge} HTTP/1.1"), 431),
            "a long query": (head(f"GET /scoreboard/top?boardId={huge} HTTP/1.1"), 431),
            "a long header": (head("GET / HTTP/1.1", f"X: {huge}"), 431),
            "a long header name": (head("GET / HTTP/1.1", f"{huge}: x"), 431),
            "10,000 headers": (head("GET / HTTP/1.1", *["X: y"] * 10_000), 431),
            "a head without an end": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000, 431),
            "a method without an end": (b"A" * 100_000, (400, 431)),
            "a million breaks": (b"\r\n" * 2**20 + head("GET /%zz/x HTTP/1.1"), (400, 404)),
            "a body of 1 GiB": (head(f"POST {ONE} HTTP/1.1", f"Content-Length: {2**30}") + b"x" * 100_000, 413),
            "a byte too long": (head(f"POST {ONE} HTTP/1.1", f"Content-Length: {BODY_BYTES_MAX + 1}"), 413),
            "a length of 2^64": (head(f"POST {ONE} HTTP/1.1", f"Content-Length: {2**64}"), (400, 413)),
            "a length of 1,000 digits": (head(f"POST {ONE} HTTP/1.1", f"Content-Length: {'9' * 1000}"), (400, 413)),
            "a body of 6.5 MiB": (post(ONE, b" " * BODY_BYTES_MAX, bearer), 400),
            "a chunk of 2^63 bytes": (chunked + b"7fffffffffffffff\r\nx", (400, 413)),
            "a chunk of 2^80 bytes": (chunked + b"f" * 20 + b"\r\nx", (400, 413)),
            "chunks without an end": (chunked + b"10000\r\n%b\r\n" % (b"x" * 65536) * 200, 413),
            "chunks of one byte": (chunked + b"1\r\nx\r\n" * 200_000, 413),
            "a chunk extension": (chunked + b"1;" + b"x" * 200_000, (400, 413)),
            "trailers without an end": (chunked + b"0\r\n" + b"X: y\r\n" * 50_000, (400, 413)),
            "1,001 increments": (post(BATCH, json.dumps([item] * 1001).encode(), bearer), 400),
            "a million increments": (post(BATCH, b"[" + b"0," * 10**6 + b"0]", bearer), 400),
            "an id of 129 characters": (post(ONE, json.dumps(long_id).encode(), bearer), 400),
            "an id of 6 MB": (post(ONE, b'{"userId":"%b","actionId":"m"}' % (b"x" * 6_000_000), bearer), 400),
            "a field name of 6 MB": (post(ONE, b'{"%b":1}' % (b"x" * 6_000_000), bearer), 400),
            "1,000 query parameters": (head(f"GET /scoreboard/top?{'&'.join(['a=b'] * 1000)} HTTP/1.1"), 400),
            "a token of 9,000 characters": (post(ONE, GOOD, "a" * 9_000), 401),
        },
    )


def bad_text(target: Target) -> None:
    """Bytes that are no UTF-8, half characters and control characters, in bodies, paths and headers."""
    bearer = token("admin")

    def body(text: bytes) -> tuple[bytes, Statuses]:
        return post(ONE, b'{"userId":"' + text + b'","actionId":"m"}', bearer), 400

    requests: Requests = {
        name: body(text)
        for name, text in {
            "no UTF-8": b"\xff\xfe",
            "cut off": b"\xe2\x82",
            "overlong": b"\xc0\xaf",
            "a surrogate in UTF-8": b"\xed\xa0\x80",
            "beyond Unicode": b"\xf4\x90\x80\x80",
            "a lone surrogate, escaped": rb"\ud800",
            "surrogates in the wrong order": rb"\udc00\ud800",
            "a bad escape": rb"\x41",
            "a cut escape": rb"\u12",
            "a NUL": b"\x00",
            "a NUL, escaped": rb"\u0000",
            "a line break, escaped": rb"\n",
            "a C1 control": b"\xc2\x9b",
            "a line separator": "\u2028".encode(),
        }.items()
    }
    requests |= {
        "UTF-16": (post(ONE, GOOD.decode().encode("utf-16"), bearer), 400),
        "two byte order marks": (post(ONE, b"\xef\xbb\xbf" * 2 + GOOD, bearer), 400),
        "a path that is no UTF-8": (head("GET /scores/%ff%fe HTTP/1.1"), 400),
        "a path with a surrogate": (head("GET /scores/%ed%a0%80 HTTP/1.1"), 400),
        "a path with raw bytes": (b"GET /scores/\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        "a query that is no UTF-8": (head("GET /scoreboard/top?boardId=%ff HTTP/1.1"), 400),
        "a name with a bell": (put(USER, b'{"displayName":"\\u0007"}', bearer), 400),
        "a token with raw bytes": (head("GET /actions/x HTTP/1.1", "Authorization: Bearer \xff.\xff.\xff"), 401),
    }
    each_refused(target, requests)


def nested_json(target: Target) -> None:
    """Brackets in brackets, deeper than our decoder goes, closed and left open, wherever JSON is read."""
    bearer = token("admin")
    requests: Requests = {}
    for depth in (100, 12_000):
        bodies = {
            "arrays": b"[" * depth + b"]" * depth,
            "arrays left open": b"[" * depth,
            "an item": b"[" + b"[" * depth + b"]" * depth + b"]",
            "a value": b'{"userId":' + b"[" * depth + b"]" * depth + b"}",
            "objects left open": b'{"a":' * (depth // 5),
            "an unknown field": b'{"x":' + b"[" * depth + b"]" * depth + b"}",
        }
        for name, body in bodies.items():
            requests[f"{name}, {depth} deep, as an increment"] = (post(ONE, body, bearer), 400)
            requests[f"{name}, {depth} deep, as a user"] = (put(USER, body, bearer), 400)
            # A batch with one bad item is answered, item by item.
            requests[f"{name}, {depth} deep, as a batch"] = (post(BATCH, body, bearer), (200, 400))
    each_refused(target, requests)


def numbers_and_fields(target: Target) -> None:
    """NaN, infinity, numbers of a million digits, points that the caller wants to decide, unknown fields."""
    bearer = token("admin")
    texts = [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-0", b"1" * 10**6, b"1e" + b"9" * 10**5, b"0x10", b"1_000",
             b"true", b"null", b"[]", b"{}", b'"10"', b"9007199254740993", b"0.1", b"01", b"+1", b".5"]  # fmt: skip
    requests: Requests = {}
    for text in texts:
        name = text[:20].decode()
        for field in ("delta", "score", "points"):
            body = b'{"userId":"mallory","actionId":"m","%b":%b}' % (field.encode(), text)
            requests[f"{field} {name}"] = (post(ONE, body, bearer), 400)
        if text != b'"10"':
            requests[f"userId {name}"] = (post(ONE, b'{"userId":%b,"actionId":"m"}' % text, bearer), 400)
        requests[f"the whole body {name}"] = (post(ONE, text, bearer), 400)
        path = f"/scoreboard/top?limit={text[:2000].decode()}"
        requests[f"limit {name}"] = (head(f"GET {path} HTTP/1.1"), 400)
    each_refused(target, requests)


def lying_lengths(target: Target) -> None:
    """MessagePack that says it has more than it has, or than it may have: a million items, texts of 16 MiB."""
    bearer = token("admin")
    item = b"\x82\xa6userId\xa7mallory\xa8actionId"
    bodies = {
        "nothing": b"",
        "an array of a million": b"\xdd" + struct.pack(">I", MANY),
        "an array of 65,535": b"\xdc\xff\xff",
        "an array of 1,000 that has one": b"\xdc" + struct.pack(">H", 1000) + item + b"\xa1m",
        "an array of 15 that has none": b"\x9f",
        "a map of a million": b"\xdf" + struct.pack(">I", MANY),
        "an item that is a map of a million": b"\x91\xdf" + struct.pack(">I", MANY),
        "an item of 15 fields that has two": b"\x91" + b"\x8f" + item[1:] + b"\xa1m",
        "a text of 16 MiB": b"\x91" + item + b"\xdb" + struct.pack(">I", 2**24) + b"m",
        "a text of 64 KiB": b"\x91" + item + b"\xda\xff\xffm",
        "a field name of 16 MiB": b"\x91\x81\xdb" + struct.pack(">I", 2**24) + b"userId",
        "binary of 16 MiB": b"\x91" + item + b"\xc6" + struct.pack(">I", 2**24),
        "an extension of 16 MiB": b"\x91" + item + b"\xc9" + struct.pack(">I", 2**24) + b"\x01",
        "the byte that means nothing": b"\xc1" * 1000,
        "cut in a number": b"\x91\xcf\x00\x00",
        "arrays, 100 deep": b"\x91" * 100,
        "arrays, 12,000 deep": b"\x91" * 12_000,
        "maps, 12,000 deep": b"\x91" + b"\x81\xa1a" * 12_000,
        "something after the end": b"\x91" + item + b"\xa1m" + b"\x00" * 1000,
        "six million items": b"\xdd" + struct.pack(">I", 6_000_000) + b"\x00" * 6_000_000,
        "JSON": b"[" + GOOD + b"]",
    }
    each_refused(target, {name: (post(BATCH, body, bearer, PACKED), 400) for name, body in bodies.items()})


def path_tricks(target: Target) -> None:
    """Parent paths, doubled slashes, other forms of a target, nested encodings: nothing is there, no file is found."""
    paths: dict[str, Statuses] = {
        "/../../../../etc/passwd": 404,
        "/%2e%2e/%2e%2e/etc/passwd": 404,
        "/docs/../openapi.json": 404,
        "/..%2f..%2fetc%2fpasswd": 404,
        "//": 404,
        "//healthz": 404,
        "/healthz//": 404,
        "/healthz%00": 404,
        "/healthz%20": 404,
        "/HEALTHZ": 404,
        "/healthz;x=1": 404,
        "/%68ealthz%2f": 404,
        "/scores/%00": 400,
        "/scores/%": 400,
        "/scores/%zz": 400,
        "/scores/": 400,
        "/scores//around": 400,
        "/scores/%252e%252e": 404,
        "/scores/..%2f..%2fetc%2fpasswd": 404,
        "/scores/a/b/c": 404,
        "/" + "a/" * 4000: 404,
        "/" + "%2f" * 4000: 404,
        "/pages/index.html": 404,
        "/static/..\\..\\x": 404,
        "http://a@b/healthz": 400,
        "http:///healthz": 400,
        "file:///etc/passwd": 400,
        "*": 400,
        "healthz": 400,
        "/healthz#x": 400,
        "/a\tb": 400,
        "/a b": 400,
    }
    each_refused(target, {path[:60]: (head(f"GET {path} HTTP/1.1"), status) for path, status in paths.items()})
    for method, status in {"TRACE": 405, "PATCH": 405, "DELETE": 405, "PROPFIND": 405, "BREW": 400, "get": 400}.items():
        each_refused(target, {method: (head(f"{method} /healthz HTTP/1.1"), status)})


def header_tricks(target: Target) -> None:
    """Two lengths, two codings, folded lines, bare line feeds: we and a proxy must not read different requests."""
    inner = head("GET /healthz HTTP/1.1")
    line = f"POST {ONE} HTTP/1.1"
    heads: dict[str, tuple[list[str], bytes]] = {
        "a length and a coding": (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n" + inner),
        "a coding and a length": (["Transfer-Encoding: chunked", "Content-Length: 5"], b"0\r\n\r\n" + inner),
        "two lengths": (["Content-Length: 5", "Content-Length: 6"], b"123456" + inner),
        "the same length twice": (["Content-Length: 5", "Content-Length: 5"], b"12345" + inner),
        "a list of lengths": (["Content-Length: 5, 5"], b"12345" + inner),
        "a length with a sign": (["Content-Length: +5"], b"12345" + inner),
        "a negative length": (["Content-Length: -5"], inner),
        "a length in hexadecimal": (["Content-Length: 0x5"], b"12345" + inner),
        "an empty length": (["Content-Length:"], inner),
        "a coding twice": (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], b"0\r\n\r\n" + inner),
        "an unknown coding": (["Transfer-Encoding: xchunked"], b"0\r\n\r\n" + inner),
        "chunked before another": (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n" + inner),
        "gzip and chunked": (["Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n" + inner),
        "a tab before chunked": (["Transfer-Encoding:\x0bchunked"], b"0\r\n\r\n" + inner),
        "a space before the colon": (["Content-Length : 5"], b"12345" + inner),
        "a folded line": (["X: y", " Content-Length: 5"], b"12345" + inner),
        "a line without a colon": (["nonsense"], inner),
        "a header without a name": ([": x"], inner),
        "a NUL in a value": (["X: a\x00b"], inner),
        "a NUL in a name": (["X\x00: y"], inner),
        "a bare carriage return": (["X: a\rContent-Length: 5"], inner),
        "a bare line feed": (["X: a\nContent-Length: 5"], inner),
        "a second Host": (["Host: evil"], inner),
        "a compressed body": ([f"Authorization: Bearer {token('admin')}", "Content-Encoding: gzip",
                               f"Content-Length: {len(GOOD)}", "Connection: close"], GOOD + inner),
    }  # fmt: skip
    requests: Requests = {name: (head(line, *lines) + rest, 400) for name, (lines, rest) in heads.items()}
    chunked = head(line, "Transfer-Encoding: chunked")
    for chunk in (b"x\r\n", b"+1\r\nx\r\n", b"1\r\nxx\r\n", b"0x1\r\nx\r\n"):
        requests[f"the chunk {chunk!r}"] = (chunked + chunk + b"0\r\n\r\n" + inner, 400)
    requests |= {
        "no Host": (b"GET / HTTP/1.1\r\n\r\n" + inner, 400),
        "HTTP/0.9": (b"GET /\r\n\r\n" + inner, 400),
        "HTTP/3.0": (head("GET / HTTP/3.0") + inner, 400),
        "CONNECT": (head("CONNECT evil:443 HTTP/1.1") + inner, 400),
        "a request after a bad Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n" + inner, 400),
    }
    requests |= OTHER_PROTOCOLS
    each_refused(target, requests)


def noise(target: Target) -> None:
    """Random bytes, greetings of other protocols, good requests with changed bytes: no answer is 5xx."""
    dice = random.Random(NOISE_SEED)
    good = post(BATCH, b"[%b]" % GOOD.replace(b"m-1", b"noise"), token("admin"))
    greetings = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"SSH-2.0-x\r\n", b"EHLO x\r\n",
                 b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"*1\r\n$4\r\nPING\r\n", b"\5\1\0", bytes(5000)]  # fmt: skip
    for number in range(NOISES):
        if number < len(greetings):
            data = greetings[number]
        elif number % 2:
            data = dice.randbytes(dice.randint(1, 5_000))
        else:
            changed = bytearray(good)
            for _ in range(dice.randint(1, 8)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            data = bytes(changed)
        statuses = [reply.status for reply in target.ask(data)]
        assert all(status < 500 for status in statuses), (number, data, statuses)


def new_heads(target: Target) -> None:
    """5,000 good requests for the top, each with a new head of 15 KB: the server must keep none of these heads."""
    with target.connect() as connection:
        answers = connection.makefile("rb")
        for number in range(5_000):
            connection.sendall(head("GET /scoreboard/top HTTP/1.1", f"X: {number}", f"Y: {'y' * 15_000}"))
            status, length = answers.readline(), 0
            while (line := answers.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
            assert status.startswith(b"HTTP/1.1 200 "), status
            answers.read(length)


_RUNS: list[tuple[str, Callable[[Target], None]]] = [
    ("oversized everything", oversized_everything),
    ("bad text", bad_text),
    ("nested JSON", nested_json),
    ("numbers and fields", numbers_and_fields),
    ("lying lengths", lying_lengths),
    ("path tricks", path_tricks),
    ("header tricks", header_tricks),
    ("new heads", new_heads),
    ("noise", noise),
]

REQUESTS = tuple(Attack(name, run.__doc__ or "", run) for name, run in _RUNS)
