"""What viewers may send, and what they are told about anything else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import bounds
from server.http.messages import Refused
from server.http.websocket import BINARY, TEXT, Message
from server.live.viewer_messages import Wish, error_frame, read_wish
from tests.server.live.client_frames import take_server_frame


@pytest.mark.parametrize(
    ("payload", "wish"),
    [
        (b'{"type":"subscribe","boardId":"weekly","userId":"ann"}', Wish("subscribe", "weekly", "ann")),
        (b' {"userId" : "a\\u00e9/b", "type":"unsubscribe"}', Wish("unsubscribe", None, "aé/b")),
        (b'{"type":"subscribe","boardId":null,"userId":null}', Wish("subscribe", None, None)),
    ],
)
def test_a_message_is_read(payload: bytes, wish: Wish) -> None:
    """All fields but the type may be left out, or be null."""
    assert read_wish(Message(TEXT, payload)) == wish


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b"hello", "message"),
        (b"", "message"),
        (b"[" * 4096, "message"),
        (b'["subscribe"]', "message"),
        (b"{}", "type"),
        (b'{"type":"publish"}', "type"),
        (b'{"type":["subscribe"]}', "type"),
        (b'{"type":"subscribe","user":"ann"}', "user"),
        (b'{"type":"subscribe","userId":7}', "userId"),
        (b'{"type":"subscribe","userId":""}', "userId"),
        (b'{"type":"subscribe","userId":"a\\u0000"}', "userId"),
        (b'{"type":"subscribe","userId":"\\ud800"}', "message"),
        (b'{"type":"subscribe","boardId":"' + b"x" * 200 + b'"}', "boardId"),
    ],
)
def test_what_is_wrong_is_named(payload: bytes, field: str) -> None:
    """INVALID_REQUEST, with the field at fault."""
    with pytest.raises(Refused) as refused:
        read_wish(Message(TEXT, payload))
    assert (refused.value.code, refused.value.details["field"]) == ("INVALID_REQUEST", field)


def test_only_texts_are_read() -> None:
    """A binary message is refused, whatever is in it."""
    with pytest.raises(Refused):
        read_wish(Message(BINARY, b'{"type":"subscribe"}'))


def test_the_longest_ids_fit() -> None:
    """A message of two ids of 128 characters, each escaped as a pair of surrogates."""
    escaped = b"\\ud83d\\ude00" * 128
    payload = b'{"type":"subscribe","boardId":"' + escaped + b'","userId":"' + escaped + b'"}'
    assert len(payload) <= bounds.VIEWER_MESSAGE_BYTES_MAX
    assert read_wish(Message(TEXT, payload)).user_id == "😀" * 128


def test_a_refusal_has_the_fields_of_an_error() -> None:
    """And its type; the project's codes."""
    with pytest.raises(Refused) as refused:
        read_wish(Message(TEXT, b"{}"))
    taken = take_server_frame(bytearray(error_frame(refused.value)))
    assert taken is not None
    assert msgspec.json.decode(taken[1]) == {
        "type": "error",
        "code": "INVALID_REQUEST",
        "message": "type must be subscribe or unsubscribe.",
        "details": {"field": "type", "allowed": ["subscribe", "unsubscribe"]},
    }


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
likely = st.dictionaries(st.sampled_from(["type", "boardId", "userId", "x"]), values | st.just("subscribe"))


@given(st.binary() | values.map(msgspec.json.encode) | likely.map(msgspec.json.encode))
def test_whatever_comes_is_read_or_refused(payload: bytes) -> None:
    """There is no third way, and a refusal can be sent."""
    answer: Wish | bytes
    try:
        answer = read_wish(Message(TEXT, payload))
    except Refused as refused:
        answer = error_frame(refused)
    assert isinstance(answer, bytes) or answer.kind in ("subscribe", "unsubscribe")
