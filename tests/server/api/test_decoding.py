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
from server.api.decoding import IncrementBody, UserBody, check_content, decode_batch, decode_increment, decode_user
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
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b'{"userId":"a","actionId":"b",}',
        b"{'userId':'a'}",
        b'{"userId":"a\x01","actionId":"b"}',
        b'{"userId":"\\ud800","actionId":"b"}',
        b'{"userId":"\xff","actionId":"b"}',
        b'{"userId":NaN,"actionId":"b"}',
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """Empty, cut off, something after it, UTF-16, two marks, raw control characters, lone surrogates, bad UTF-8."""
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


def test_null_for_an_optional_field_is_as_if_it_was_left_out() -> None:
    """Serializers of many languages write it. A field that is needed must not be null."""
    expected = IncrementBody("ann", "a1", "ACTION_COMPLETED", "main")
    for nulls in ({"reason": None}, {"boardId": None}, {"reason": None, "boardId": None}):
        item = {"userId": "ann", "actionId": "a1", **nulls}
        assert decode_increment(msgspec.json.encode(item)) == expected
        for rest in ([], [{"userId": "bob", "actionId": "b1"}], [{"userId": None, "actionId": "b1"}], [5]):
            for encode, kind in ((msgspec.json.encode, JSON), (msgspec.msgpack.encode, MSGPACK)):
                assert decode_batch(encode([item, *rest]), 10, kind)[0] == expected
    assert fault_of(b'{"userId":null,"actionId":"b","reason":null}')[0] == "userId"
    assert fault_of(b'{"userId":"a","actionId":"b","reason":5,"boardId":null}') == (
        "reason", "reason must be a string, not a number.",
    )  # fmt: skip
    assert fault_of(b'{"userId":"\\n","actionId":"b","reason":null}')[0] == "userId"


def test_null_takes_a_name_away_and_leaves_the_rest() -> None:
    """For the name null has a meaning. For `active` it is as if it was left out."""
    assert decode_user(b'{"displayName":null,"active":null}') == UserBody(None)
    assert decode_user(b'{"displayName":null,"active":false}') == UserBody(None, False)
    with pytest.raises(Refused) as caught:
        decode_user(b'{"active":null}')
    assert caught.value.details == {"field": "body"}


def test_a_byte_order_mark_is_skipped() -> None:
    """Some serializers begin with it, and RFC 8259 lets a reader ignore it."""
    mark = b"\xef\xbb\xbf"
    item = b'{"userId":"ann","actionId":"a1"}'
    assert decode_increment(mark + item) == decode_increment(item)
    assert decode_batch(mark + b"[" + item + b"]", 10) == [decode_increment(item)]
    assert decode_user(mark + b'{"active":true}').active is True


UNSEEN = {
    "white space": " \u00a0\u2003\u3000",
    "zero width": "\u200b\u200c\u200d\u2060\ufeff",
    "Hangul fillers": "\u3164\uffa0\u115f\u1160",
    "combining only": "\u0301\u20dd\u0903",
    "a blank of Braille": "\u2800",
    "variation selectors": "\ufe0f\U000e0100",
    "tags": "\U000e0067\U000e007f",
    "directions": "\u202e\u2066\u2069",
    "a soft hyphen": "\u00ad",
    "vowels that are not written": "\u17b4\u180b\u180e",
    "a blank of music": "\U0001d159",
    "reserved": "\u2065\U000e0fff\ufff0",
    "noncharacters": "\ufdd0\uffff\U0010ffff",
}


@pytest.mark.parametrize("name", [*UNSEEN.values(), "".join(UNSEEN.values())], ids=[*UNSEEN, "all of them"])
def test_a_name_that_shows_nothing_is_refused(name: str) -> None:
    """Alone, and many times. With one character that can be seen it is a name."""
    for unseen in (name, name[:1] * 128):
        with pytest.raises(Refused) as caught:
            decode_user(msgspec.json.encode({"displayName": unseen}))
        assert caught.value.details == {"field": "displayName"}
        assert "shows nothing" in caught.value.message
    assert decode_user(msgspec.json.encode({"displayName": f"{name}x"})).display_name == f"{name}x"


@pytest.mark.parametrize(
    "name", ["-", "\u00e9", "e\u0301", "\U0001f600", "\u2764\ufe0f", "\ud55c", "\u1112", "\ue000", "\u2801"]
)
def test_a_name_that_shows_something_is_a_name(name: str) -> None:
    """Marks, symbols, emoji with their selectors, Hangul, private characters: a font may draw them."""
    assert decode_user(msgspec.json.encode({"displayName": name})).display_name == name


@pytest.mark.parametrize(
    "parameters",
    [
        "; profile=x",
        ";",
        "; charset=utf-8; odata.metadata=none",
        ';v="a;charset=latin1"',
        "; foo",
        ";version=1;charset=UTF8",
    ],
)
def test_other_parameters_of_a_content_type_are_ignored(parameters: str) -> None:
    """They say nothing that changes how JSON is read."""
    check_content(Request("POST", "/", headers={"content-type": f"application/json{parameters}"}))
    check_content(
        Request("POST", "/", headers={"content-type": f"application/msgpack{parameters}"}), may_be_packed=True
    )


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", ';charset="UTF-8"', "; charset=utf8"])
def test_json_may_say_its_charset(charset: str) -> None:
    """It is UTF-8 anyway."""
    check_content(Request("POST", "/", headers={"content-type": f"application/json{charset}"}))
    check_content(Request("POST", "/"))


def test_what_curl_says_unasked_counts_as_nothing_said() -> None:
    """A newcomer who leaves the header out must not stumble over it."""
    check_content(Request("POST", "/", headers={"content-type": "application/x-www-form-urlencoded"}))


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/json",
        "application/jsonp",
        "application/json; charset=utf-16",
        'application/json;a=b;Charset="latin1"',
        "application/json; charset=",
        "*/*",
    ],
)
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
