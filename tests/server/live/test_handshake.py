"""The opening handshake: what is a WebSocket, what is refused and how, and what is agreed on."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.http.messages import Refused, RequestHead
from server.http.response_head import head_end, http_bytes
from server.live import handshake
from server.live.board_view import BoardView
from server.live.handshake import Upgrade, read_upgrade
from server.settings.origins import parse_origins

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {
    "host": "game.example",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}


def head(
    *more: tuple[str, str],
    target: str = "/ws/scoreboard",
    method: str = "GET",
    version: str = "HTTP/1.1",
    changed: Mapping[str, str | None] | None = None,
) -> RequestHead:
    """Make a correct head with some headers changed (None: left out) and some more."""
    headers = {**HEADERS, **(changed or {})}
    pairs = [(name, value) for name, value in headers.items() if value is not None]
    return RequestHead(method=method, target=target, version=version, headers=[*pairs, *more])


def refused(request: RequestHead) -> Refused:
    """Read a head that must be refused."""
    with pytest.raises(Refused) as caught:
        read_upgrade(request)
    return caught.value


# Correct ones


def test_the_example_of_the_rfc() -> None:
    """RFC 6455, section 1.3: the key of the example gives the accept value of the example."""
    upgrade = read_upgrade(head())
    assert upgrade == Upgrade("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", None, None, None, BoardView("main"))
    assert upgrade.response() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\n"
        b"connection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "keep-alive,UPGRADE ,x"])
def test_upgrade_is_one_word_of_connection(connection: str) -> None:
    """Firefox says `keep-alive, Upgrade`; the words are a list and their case means nothing."""
    assert read_upgrade(head(changed={"connection": connection})).view.board_id == "main"


def test_upgrade_may_be_spread_over_headers() -> None:
    """A list may come as more than one header of the name."""
    changed = {"connection": "keep-alive", "upgrade": "WebSocket"}
    assert read_upgrade(head(("connection", "upgrade"), changed=changed)).view.board_id == "main"


def test_extensions_are_never_accepted() -> None:
    """Compression is offered by every browser, and never mentioned in the answer."""
    upgrade = read_upgrade(head(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")))
    assert b"extensions" not in upgrade.response()


@pytest.mark.parametrize(
    ("offers", "selected"),
    [
        ([], None),
        (["scoreboard.v1"], "scoreboard.v1"),
        (["scoreboard.delta.v1"], "scoreboard.delta.v1"),
        (["scoreboard.delta.v1, scoreboard.v1"], "scoreboard.delta.v1"),
        (["scoreboard.v1,scoreboard.delta.v1"], "scoreboard.v1"),
        (["chat", "scoreboard.delta.v1"], "scoreboard.delta.v1"),
        (["chat, graphql-ws"], None),
        (["scoreboard.v2"], None),
        (["SCOREBOARD.V1"], None),
        (["scoreboard.token.aaa.bbb.ccc"], None),
        (["scoreboard.token.aaa.bbb.ccc, scoreboard.v1"], "scoreboard.v1"),
    ],
)
def test_the_first_known_subprotocol_is_selected(offers: list[str], selected: str | None) -> None:
    """A client offers in the order of its liking; of what is not known, or is a token, none is ever selected."""
    upgrade = read_upgrade(head(*(("sec-websocket-protocol", offer) for offer in offers)))
    assert upgrade.subprotocol == selected
    answer = upgrade.response()
    assert (b"sec-websocket-protocol" in answer) == (selected is not None)
    if selected is not None:
        assert f"\r\nsec-websocket-protocol: {selected}\r\n".encode() in answer
    assert b"token" not in answer


def test_a_token_among_the_subprotocols_is_as_good_as_a_header() -> None:
    """A browser can't set Authorization on a WebSocket."""
    upgrade = read_upgrade(head(("sec-websocket-protocol", "scoreboard.v1, scoreboard.token.aaa.bbb.c-_c")))
    assert upgrade.authorization == "Bearer aaa.bbb.c-_c"


def test_the_header_comes_before_the_subprotocol() -> None:
    """With both, what Authorization says is what counts, as on every other route."""
    offer = ("sec-websocket-protocol", "scoreboard.token.a.b.c")
    upgrade = read_upgrade(head(("authorization", "Bearer x.y.z"), offer))
    assert upgrade.authorization == "Bearer x.y.z"


def test_two_authorizations_are_not_one() -> None:
    """Two headers become a list, which is no valid token, instead of one of them being picked."""
    upgrade = read_upgrade(head(("authorization", "Bearer a"), ("authorization", "Bearer b")))
    assert upgrade.authorization == "Bearer a, Bearer b"


@pytest.mark.parametrize(
    ("target", "board_id"),
    [
        ("/ws/scoreboard", "main"),
        ("/ws/scoreboard?", "main"),
        ("/ws/scoreboard?boardId=weekly", "weekly"),
        ("/ws/scoreboard?_=1&boardId=a%20b&_=2", "a b"),
        ("/ws/scoreboard?boardId=k%C3%B6nig", "könig"),
    ],
)
def test_the_board_is_in_the_query(target: str, board_id: str) -> None:
    """The default is `main`, and `_` is passed over."""
    assert read_upgrade(head(target=target)).view.board_id == board_id


# Refusals


@pytest.mark.parametrize("method", ["POST", "HEAD", "get", "CONNECT"])
def test_only_get_opens_the_channel(method: str) -> None:
    """405, with what is allowed."""
    refusal = refused(head(method=method))
    assert (refusal.status, refusal.code, refusal.headers) == (405, "METHOD_NOT_ALLOWED", (("allow", "GET"),))


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", ""])
def test_only_http_1_1_can_be_upgraded(version: str) -> None:
    """400: the mechanism does not exist in other versions."""
    refusal = refused(head(version=version))
    assert (refusal.status, refusal.code) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"upgrade": None}, "Upgrade"),
        ({"upgrade": "h2c"}, "Upgrade"),
        ({"upgrade": "websocketx"}, "Upgrade"),
        ({"connection": None}, "Connection"),
        ({"connection": "keep-alive"}, "Connection"),
        ({"sec-websocket-version": None}, "Sec-WebSocket-Version"),
        ({"sec-websocket-version": "8"}, "Sec-WebSocket-Version"),
        ({"sec-websocket-version": "13, 8"}, "Sec-WebSocket-Version"),
    ],
)
def test_a_plain_request_is_told_to_upgrade(changed: dict[str, str | None], field: str) -> None:
    """426 with the version that would do, naming the header that is missing or wrong."""
    refusal = refused(head(changed=changed))
    assert (refusal.status, refusal.code, refusal.details) == (426, "INVALID_REQUEST", {"field": field})
    answer = http_bytes(refusal.response(), b"\r\n").lower()
    assert answer.startswith(b"http/1.1 426 upgrade required\r\n")
    assert b"\r\nsec-websocket-version: 13\r\n" in answer
    assert b"\r\nupgrade: websocket\r\n" in answer


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "tooshort",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZTE=",
        "dGhlIHNhbXBsZSBub2==5jZQ",
        "dGhlIHNhbXBsZSBub25jZ!==",
        "dGhlIHNhbXBsZSBub25jZé==",
    ],
)
def test_the_key_is_16_bytes_in_base64(key: str | None) -> None:
    """400, naming the header."""
    refusal = refused(head(changed={"sec-websocket-key": key}))
    assert (refusal.status, refusal.details) == (400, {"field": "Sec-WebSocket-Key"})


def test_two_keys_are_none() -> None:
    """A header that must be there once is not taken from two."""
    assert refused(head(("sec-websocket-key", KEY))).details == {"field": "Sec-WebSocket-Key"}


@pytest.mark.parametrize("more", [[("host", "other.example")], []])
def test_the_host_is_given_once(more: list[tuple[str, str]]) -> None:
    """No Host, or two, is a fault in every HTTP/1.1 request."""
    refusal = refused(head(*more, changed={"host": "game.example" if more else None}))
    assert (refusal.status, refusal.details) == (400, {"field": "Host"})


@pytest.mark.parametrize("header", [("content-length", "5"), ("content-length", "x"), ("transfer-encoding", "chunked")])
def test_a_handshake_has_no_body(header: tuple[str, str]) -> None:
    """Frames follow the head; no proxy may take them for a body."""
    assert refused(head(header)).status == 400


def test_an_empty_body_is_no_body() -> None:
    """Some clients say so expressly."""
    assert read_upgrade(head(("content-length", "0"))).view.board_id == "main"


@pytest.mark.parametrize(
    "query", ["boardId=", "boardId=a&boardId=b", "boardId=%00", "boardId=%ff", "boardId=" + "x" * 129]
)
def test_a_board_id_is_an_id(query: str) -> None:
    """400, as on every other route."""
    refusal = refused(head(target=f"/ws/scoreboard?{query}"))
    assert (refusal.status, refusal.code) == (400, "INVALID_REQUEST")


def test_a_refusal_has_the_shape_of_every_error() -> None:
    """A full HTTP answer with the error as JSON, after which the connection ends."""
    answer = http_bytes(refused(head(changed={"sec-websocket-key": "x"})).response(), head_end(last=True))
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nconnection: close" in start
    assert f"\r\ncontent-length: {len(body)}".encode() in start
    error = msgspec.json.decode(body)["error"]
    assert (error["code"], error["details"]) == ("INVALID_REQUEST", {"field": "Sec-WebSocket-Key"})


# Origins

ALLOWED = parse_origins(("https://game.example", "http://localhost:8080", "http://[::1]", "https://*.play.example"))


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "https://game.example",
        "HTTPS://Game.Example",
        "https://game.example:443",
        "http://localhost:8080",
        "http://[::1]:80",
        "https://eu.play.example",
    ],
)
def test_pages_on_the_list_may_open_the_channel(origin: str | None) -> None:
    """Case and a scheme's own port make no difference; a client without Origin is no browser."""
    handshake.check_origin(origin, ALLOWED)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://game.example",
        "https://game.example:8443",
        "https://game.example.evil.example",
        "https://sub.game.example",
        "https://game.example/",
        "https://play.example",
        "http://localhost",
        "null",
        "",
        "https://game.example, https://evil.example",
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    """403 UNAUTHORIZED; scheme, host and port all count, and `null` (a file, a sandbox) is not on the list."""
    with pytest.raises(Refused) as caught:
        handshake.check_origin(origin, ALLOWED)
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.details) == (403, "UNAUTHORIZED", {"origin": origin})


def test_without_a_list_every_page_may() -> None:
    """That is what `*` in the configuration comes to."""
    handshake.check_origin("https://evil.example", None)


@pytest.mark.parametrize("host", ["evil.example", "EVIL.example"])
def test_the_pages_of_this_server_may(host: str) -> None:
    """Whatever its name is: the page came from there. Another port is another server."""
    handshake.check_origin("https://Evil.example", ALLOWED, host)
    for origin, other in (("https://evil.example", "game.example"), ("https://evil.example:1", host), ("null", "")):
        with pytest.raises(Refused):
            handshake.check_origin(origin, ALLOWED, other)


def test_an_origin_that_was_sent_is_never_taken_for_none() -> None:
    """An empty Origin header, or two of them, is still an origin that has to be on the list."""
    assert read_upgrade(head(("origin", ""))).origin == ""
    assert read_upgrade(head(("origin", "https://a"), ("origin", "https://b"))).origin == "https://a, https://b"


# Anything at all

texts = st.text(st.characters(codec="latin-1"), max_size=20)
names = st.sampled_from([*HEADERS, "origin", "sec-websocket-protocol", "authorization", "content-length", "x"])


@given(st.lists(st.tuples(names, texts), max_size=8), texts, st.sampled_from(["GET", "PUT"]))
def test_any_head_is_agreed_to_or_refused(more: list[tuple[str, str]], query: str, method: str) -> None:
    """Whatever a client writes into its head, there is an upgrade or a refusal, and both can be sent."""
    try:
        answer = read_upgrade(head(*more, target=f"/ws/scoreboard?{query}", method=method)).response()
    except Refused as refusal:
        answer = http_bytes(refusal.response(), b"\r\n")
    assert answer.startswith(b"HTTP/1.1 ")
