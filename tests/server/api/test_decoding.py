"""The strict reading of bodies: what is let through, and what is named when it is not."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.limits import BATCH_COMMANDS_MAX, ID_CHARACTERS_MAX
from server.api import decoding
from server.api.decoding import IncrementBody, check_content, decode_batch, decode_increment, decode_user
from server.bounds import BODY_BYTES_MAX
from server.http.messages import JSON, MSGPACK, Refused, Request


def fault_of(body: bytes) -> tuple[object, str]:
    """The field that a refusal names, and its message."""
    with pytest.raises(Refused) as caught:
        decode_increment(body)
    assert (caught.value.status, caught.value.code) == (400, "INVALID_REQUEST")
    return caught.value.details["field"], caught.value.message


def test_what_is_left_out_has_its_default() -> None:
    """The reason ACTION_COMPLETED, the board main."""
    expected = IncrementBody("ann", "a1", "ACTION_COMPLETED", "main")
    assert decode_increment(b'{"userId":"ann","actionId":"a1"}') == expected


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    """Allowed by RFC 8259; what matters is that every reader of ours agrees."""
    assert decode_increment(b'{"userId":"ann","actionId":"a1","userId":"bob"}').user_id == "bob"


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b'{"userId":"a","actionId":"b","delta":5}', "delta", "Unknown field delta."),
        (b'{"userId":"a","actionId":"b","user_id":"c"}', "user_id", "Unknown field user_id."),
        (b'{"userId":1,"actionId":"b"}', "userId", "userId must be a string, not a number."),
        (b'{"userId":1.5,"actionId":"b"}', "userId", "userId must be a string, not a number."),
        (b'{"userId":true,"actionId":"b"}', "userId", "userId must be a string, not true or false."),
        (b'{"userId":null,"actionId":"b"}', "userId", "userId must be a string, not null."),
        (b'{"userId":["a"],"actionId":"b"}', "userId", "userId must be a string, not an array."),
        (b'{"userId":{},"actionId":"b"}', "userId", "userId must be a string, not an object."),
        (b'{"userId":"a"}', "actionId", "actionId is missing."),
        (b"{}", "userId", "userId is missing."),
        (b"[]", "body", "body must be an object, not an array."),
        (b"null", "body", "body must be an object, not null."),
        (b'{"userId":"","actionId":"b"}', "userId", "userId must not be empty."),
        (b'{"userId":"a","actionId":""}', "actionId", "actionId must not be empty."),
        (b'{"userId":"a","actionId":"b","reason":""}', "reason", "reason must not be empty."),
        (b'{"userId":"a","actionId":"b","boardId":""}', "boardId", "boardId must not be empty."),
    ],
)
def test_the_field_at_fault_is_named_in_words(body: bytes, field: str, message: str) -> None:
    """Pins the decoder's phrases, of which the messages are made: a new version must not change them unseen."""
    assert fault_of(body) == (field, message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"userId":"a","actionId":"b"} x',
        b"\xef\xbb\xbf{}",
        b'{"userId":"a","actionId":"b",}',
        b"{'userId':'a'}",
        b'{"userId":"a\x01","actionId":"b"}',
        b'{"userId":"\\ud800","actionId":"b"}',
        b'{"userId":"\xff","actionId":"b"}',
        b'{"userId":NaN,"actionId":"b"}',
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """Empty, cut off, something after it, a byte order mark, raw control characters, lone surrogates, bad UTF-8."""
    field, _ = fault_of(body)
    assert field == "body"


def test_a_long_unknown_field_is_not_sent_back_whole() -> None:
    """A name of a megabyte does not make an answer of a megabyte."""
    field, message = fault_of(b'{"' + b"x" * 1_000_000 + b'":1}')
    assert len(str(field)) < 200
    assert len(message) < 300


def test_nesting_without_end_is_refused() -> None:
    """A megabyte of brackets, wherever it stands, costs no stack."""
    deep = b"[" * 500_000
    for body in (deep, b'{"userId":' + deep, b'{"x":' + deep, b'{"userId":"a","actionId":"b","x":' + deep):
        fault_of(body)
        with pytest.raises(Refused):
            decode_user(body)
        with pytest.raises(Refused):
            decode_batch(body, 10)


def test_a_bad_item_does_not_spoil_its_neighbours() -> None:
    """Every item is read by itself: of another shape, with bad ids, even with bytes that are no UTF-8."""
    body = b'[{"userId":"a","actionId":"b"},5,{"userId":"\xff","actionId":"c"},{"userId":"","actionId":"d"}]'
    first, *others = decode_batch(body, 10)
    assert first == IncrementBody("a", "b")
    assert [other.details["field"] for other in others if isinstance(other, Refused)] == ["body", "body", "userId"]


@given(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=8))
def test_a_batch_reads_each_item_like_a_single_body(kinds: list[int]) -> None:
    """In whatever mixture, an item is what it would be alone."""
    bodies: list[object] = [
        {"userId": "a", "actionId": "b"},
        {"userId": "a", "actionId": "\n"},
        {"userId": 1, "actionId": "b"},
        "no object",
    ]
    items = decode_batch(msgspec.json.encode([bodies[kind] for kind in kinds]), 10)
    assert len(items) == len(kinds)
    for item, kind in zip(items, kinds, strict=True):
        alone = msgspec.json.encode(bodies[kind])
        if kind == 0:
            assert item == decode_increment(alone)
        else:
            assert isinstance(item, Refused)
            assert (item.details["field"], item.message) == fault_of(alone)


@pytest.mark.parametrize("count", [0, 11])
def test_the_length_of_a_batch_is_bounded(count: int) -> None:
    """Neither empty nor over the maximum, whatever the items are."""
    for item in ({"userId": "a", "actionId": "b"}, 5):
        with pytest.raises(Refused) as caught:
            decode_batch(msgspec.json.encode([item] * count), 10)
        assert caught.value.details == {"field": "body", "minimum": 1, "maximum": 10}


def test_a_user_is_changed_by_what_is_named() -> None:
    """One of the two fields is enough; none is not."""
    assert decode_user(b'{"active":false}').active is False
    assert decode_user(b'{"displayName":"Ann"}').display_name == "Ann"
    with pytest.raises(Refused) as caught:
        decode_user(b"{}")
    assert caught.value.details == {"field": "body"}


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", ';charset="UTF-8"', "; charset=utf8"])
def test_json_may_say_its_charset(charset: str) -> None:
    """It is UTF-8 anyway."""
    check_content(Request("POST", "/", headers={"content-type": f"application/json{charset}"}))
    check_content(Request("POST", "/"))


def test_what_curl_says_unasked_counts_as_nothing_said() -> None:
    """A newcomer who leaves the header out must not stumble over it."""
    check_content(Request("POST", "/", headers={"content-type": "application/x-www-form-urlencoded"}))


@pytest.mark.parametrize("kind", ["", "text/json", "application/jsonp", "application/json; charset=utf-16", "*/*"])
def test_other_content_is_refused(kind: str) -> None:
    """400 naming the header."""
    with pytest.raises(Refused) as caught:
        check_content(Request("POST", "/", headers={"content-type": kind}))
    assert caught.value.details == {"field": "Content-Type"}


def test_the_largest_batch_fits_in_a_body_however_its_writer_escapes() -> None:
    """All ids as long as they may be, each character written as two escapes, as json.dumps does with an emoji."""
    names = ("userId", "actionId", "reason", "boardId")
    item = dict.fromkeys(names, "\N{PARTY POPPER}" * ID_CHARACTERS_MAX)
    body = json.dumps([item] * BATCH_COMMANDS_MAX, indent=2).encode()
    assert len(body) <= BODY_BYTES_MAX
    assert all(isinstance(each, IncrementBody) for each in decode_batch(body, BATCH_COMMANDS_MAX))


def test_a_flood_of_tiny_items_is_refused_before_it_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three million of them fit in a body, and would stop the server for a third of a second."""
    for form in ("_JSON_FORM", "_MSGPACK_FORM"):
        monkeypatch.setattr(decoding, form, msgspec.structs.replace(getattr(decoding, form), apart=None))
    flood = msgspec.msgpack.encode([0] * 1_000_000)
    for body, kind in ((b"[" + b"0," * 1_000_000 + b"0]", JSON), (flood, MSGPACK)):
        with pytest.raises(Refused) as caught:
            decode_batch(body, BATCH_COMMANDS_MAX, kind)
        assert (caught.value.status, caught.value.details["maximum"]) == (400, BATCH_COMMANDS_MAX)


@pytest.mark.parametrize("field", ["userId", "actionId", "reason", "boardId"])
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("", "must not be empty"),
        ("x" * 129, "must be at most 128 characters, not 129"),
        ("é" * 129, "must be at most 128 characters, not 129"),
        ("a\x7fb", "must not have control characters (found U+007F)"),
        ("a\nb", "must not have control characters (found U+000A)"),
        ("a\u2028b", "must not have control characters (found U+2028)"),
    ],
)
def test_an_id_at_fault_is_named_whatever_the_rest_of_the_body_is_like(field: str, value: str, fault: str) -> None:
    """Plain ASCII is checked in another way than the rest: the fault found is the same, alone and in a batch."""
    for other in ("plain", "zoë", "quo\\te"):
        item = {"userId": "u", "actionId": "a", "reason": "r", "boardId": "b"} | {field: value}
        item["userId" if field != "userId" else "actionId"] = other
        assert fault_of(json.dumps(item).encode()) == (field, f"{field} {fault}.")
        for body, kind in ((msgspec.json.encode([item]), JSON), (msgspec.msgpack.encode([item]), MSGPACK)):
            [refused] = decode_batch(body, 10, kind)
            assert isinstance(refused, Refused)
            assert refused.message == f"{field} {fault}."


ITEMS = st.lists(
    st.fixed_dictionaries(
        {"userId": st.text(max_size=130), "actionId": st.text(max_size=3)},
        optional={"reason": st.just("R"), "boardId": st.just("b"), "delta": st.integers(0, 9)},
    )
    | st.integers(-(2**63), 2**64 - 1)  # MessagePack has no form for others
    | st.none(),
    max_size=6,
)


@given(ITEMS)
def test_a_packed_batch_reads_like_one_in_json(items: list[object]) -> None:
    """Item by item the same values, or the same fields at fault."""
    ways = []
    for body, kind in ((msgspec.json.encode(items), JSON), (msgspec.msgpack.encode(items), MSGPACK)):
        try:
            read = decode_batch(body, 5, kind)
        except Refused as refused:
            ways.append([refused.message])
        else:
            ways.append([item.message if isinstance(item, Refused) else repr(item) for item in read])
    assert ways[0] == ways[1]


@given(st.binary(max_size=40))
def test_whatever_the_bytes_a_packed_batch_is_read_or_refused(body: bytes) -> None:
    """Nothing else is raised, whole or cut."""
    for end in range(len(body) + 1):
        with suppress(Refused):
            decode_batch(body[:end], 10, MSGPACK)


def test_commas_in_ids_are_no_items() -> None:
    """A batch with a bad item and ids full of commas is still answered item by item."""
    item = {"userId": "," * ID_CHARACTERS_MAX, "actionId": "," * ID_CHARACTERS_MAX}
    body = json.dumps([{}, *[item] * (BATCH_COMMANDS_MAX - 1)]).encode()
    first, *others = decode_batch(body, BATCH_COMMANDS_MAX)
    assert isinstance(first, Refused)
    assert all(isinstance(each, IncrementBody) for each in others)
