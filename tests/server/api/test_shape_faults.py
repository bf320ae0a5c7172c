"""The decoder's own messages become sentences about what the caller sent: the field in words, and no type of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
import pytest

from server.api.import_forms import decode_piece
from server.api.reversal_forms import decode_reversal
from server.api.shape_faults import shape_fault
from server.http.messages import JSON, Refused


class _Inner(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    some_number: int
    texts: list[str] = []
    table: dict[str, float] = {}


class _Outer(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    inner: list[_Inner] = []
    either: int | str | None = None
    short: Annotated[str, msgspec.Meta(max_length=2)] = ""


def fault_in(content: object) -> tuple[str, str]:
    """Give what is told of the fault in a body of MessagePack, which can say all that JSON can."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.msgpack.decode(msgspec.msgpack.encode(content), type=_Outer)
    return shape_fault(str(caught.value))


@pytest.mark.parametrize(
    ("content", "field", "sentence"),
    [
        ([], "body", "body must be an object, not an array."),
        ({"x": 1}, "x", "Unknown field x."),
        ({"inner": 5}, "inner", "inner must be an array, not a number."),
        ({"inner": [5]}, "inner", "inner[0] must be an object, not a number."),
        ({"inner": [{}]}, "inner[0].someNumber", "inner[0].someNumber is missing."),
        ({"inner": [{"x": 1}]}, "inner[0].x", "Unknown field inner[0].x."),
        ({"inner": [{"someNumber": True}]}, "inner[0].someNumber",
         "inner[0].someNumber must be a whole number, not true or false."),
        ({"inner": [{"someNumber": 1.5}]}, "inner[0].someNumber",
         "inner[0].someNumber must be a whole number, not a number with a fraction or an exponent."),
        ({"inner": [{"someNumber": 1, "texts": ["a", 1.5]}]}, "inner[0].texts",
         "inner[0].texts[1] must be a string, not a number."),
        ({"inner": [{"someNumber": 1, "table": {"a": "b"}}]}, "inner[0].table",
         "inner[0].table[...] must be a number, not a string."),
        ({"either": []}, "either", "either must be a whole number or a string, not an array."),
        ({"short": None}, "short", "short must be a string, not null."),
        ({"short": "abc"}, "short", "short does not have the expected form: Expected `str` of length <= 2."),
        ({1: 2}, "body", "body has a name of a field that is not a string, but a number."),
    ],
)  # fmt: skip
def test_a_fault_is_told_of_what_was_sent(content: object, field: str, sentence: str) -> None:
    """Pins the decoder's phrases: a new version must not change what callers read."""
    assert fault_in(content) == (field, sentence)


@pytest.mark.parametrize(
    ("decode", "content", "field", "sentence"),
    [
        (decode_reversal, {"reversalId": "r", "reason": "x", "actionIds": ["a", 5]}, "actionIds",
         "actionIds[1] must be a string, not a number."),
        (decode_reversal, {"reversalId": "r", "reason": "x", "actionIds": 5}, "actionIds",
         "actionIds must be an array, not a number."),
        (decode_reversal, {"reversalId": "r", "reason": "x", "userId": "u", "from": []}, "from",
         "from must be a whole number or a string, not an array."),
        (lambda body: decode_piece(body, JSON), {"importId": "i", "digest": "d", "total": 1, "rows": [5]}, "rows[0]",
         "rows[0] must be an object, not a number."),
        (lambda body: decode_piece(body, JSON), {"importId": "i", "digest": "d", "total": 1, "rows": [{}]},
         "rows[0].userId", "rows[0]: userId is missing."),
    ],
)  # fmt: skip
def test_bodies_with_lists_say_which_item_it_is(
    decode: Callable[[bytes], object], content: object, field: str, sentence: str
) -> None:
    """The field is the one that a caller finds in the documentation."""
    with pytest.raises(Refused) as caught:
        decode(msgspec.json.encode(content))
    assert (caught.value.details["field"], caught.value.message) == (field, sentence)
