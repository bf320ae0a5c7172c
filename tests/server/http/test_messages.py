"""Requests and answers as values: the error shape, the bytes of an answer, paths, queries, conditions."""

from __future__ import annotations

import msgspec
import pytest

from server.http.messages import Refused, error, etag_matches, invalid, json_response, quoted
from server.http.target import decode_path_param, limit_of, query_values


def test_every_error_has_the_one_shape() -> None:
    """Code, message and details, and headers that keep it out of caches."""
    response = error(409, "CONFLICT", "Twice.", {"field": "actionId"}, (("allow", "GET"),))
    expected = {"error": {"code": "CONFLICT", "message": "Twice.", "details": {"field": "actionId"}}}
    assert msgspec.json.decode(response.body) == expected
    assert (response.status, response.code, response.content_type) == (409, "CONFLICT", "application/json")
    assert dict(response.headers) == {"cache-control": "no-store", "x-content-type-options": "nosniff", "allow": "GET"}
    assert msgspec.json.decode(error(500, "INTERNAL_ERROR", "x").body)["error"]["details"] == {}


def test_a_refusal_is_an_answer_or_an_item_of_one() -> None:
    """The same object, alone or in a batch."""
    refused = invalid("userId", "userId is missing.", allowed=["a"])
    alone = msgspec.json.decode(refused.response().body)
    assert alone["error"]["details"] == {"field": "userId", "allowed": ["a"]}
    assert refused.item() == {"status": 400, **alone}


def test_json_is_utf_8_as_it_is() -> None:
    """No escapes for what needs none."""
    assert json_response({"name": "名"}).body == '{"name":"名"}'.encode()


@pytest.mark.parametrize(
    ("raw", "value"),
    [("ann", "ann"), ("a%2Fb", "a/b"), ("a%2fb", "a/b"), ("a+b", "a+b"), ("%E5%90%8D", "名"), ("a%25b", "a%b")],
)
def test_a_segment_of_a_path_is_decoded_once(raw: str, value: str) -> None:
    """Percent-encoded UTF-8; a plus is a plus."""
    assert decode_path_param("userId", raw) == value


@pytest.mark.parametrize("raw", ["", "%", "%4", "%gg", "%FF", "%C3", "%ED%A0%80", "%00", "%0A", "a%7F", "x" * 129])
def test_a_segment_that_is_no_id_is_refused_by_name(raw: str) -> None:
    """Broken encoding, no UTF-8, surrogates, control characters, nothing, too much."""
    with pytest.raises(Refused) as caught:
        decode_path_param("userId", raw)
    assert (caught.value.status, caught.value.details) == (400, {"field": "userId"})


def test_a_query_gives_the_named_values_once() -> None:
    """Unknown names are passed over; encoding is undone; empty values are values."""
    assert query_values("boardId=a%20b+c&x=1&x=2&limit=", ("boardId", "limit")) == {"boardId": "a b c", "limit": ""}
    assert query_values("", ("limit",)) == {}
    with pytest.raises(Refused) as caught:
        query_values("limit=1&limit=2", ("limit",))
    assert caught.value.details == {"field": "limit"}


def test_a_limit_has_a_default_and_an_end() -> None:
    """Whole numbers from 1 to the maximum; the refusal tells both ends."""
    assert [limit_of(values, 10, 50) for values in ({}, {"limit": "1"}, {"limit": "50"})] == [10, 1, 50]
    with pytest.raises(Refused) as caught:
        limit_of({"limit": "51"}, 10, 50)
    assert caught.value.details == {"field": "limit", "minimum": 1, "maximum": 50}


@pytest.mark.parametrize(
    ("if_none_match", "matches"),
    [(None, False), ("*", True), ('"a"', True), ('W/"a"', True), ('"b", W/"a"', True), ('"b"', False), ("a", False)],
)
def test_etags_are_compared_weakly(if_none_match: str | None, matches: bool) -> None:
    """RFC 9110, section 8.8.3.2: weak or not makes no difference."""
    assert etag_matches(if_none_match, '"a"') is matches
    assert etag_matches(if_none_match, 'W/"a"') is matches


def test_what_a_caller_sent_is_quoted_short_and_harmless() -> None:
    """Cut after 128 characters; what drives a terminal is replaced."""
    assert quoted("delta") == "delta"
    assert quoted("x" * 500) == "x" * 128 + "…"
    assert quoted("a\x1b[2Jb") == "a\ufffd[2Jb"
