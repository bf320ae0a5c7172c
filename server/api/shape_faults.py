"""What the decoder finds wrong with the form of a value, in words that a caller understands. Pure.

    shape_fault("Expected `int | null`, got `str` - at `$.rows[3].score`")
        == ("rows[3].score", "rows[3].score must be a whole number, not a string.")

Rules:
- The field is named as the caller sent it, from the outside in. For an item of a list the field is that of the list,
  and the sentence says which item.
- A type, such as the name of a class of ours, is never told. Nor is `null` among what is expected: it is as if the
  field was left out.
- A test pins the phrases of the decoder that this reads. Any other is told as it is.
"""

from __future__ import annotations

import re

from server.http.messages import quoted

BODY = "body"
"""What stands for the outermost value."""

_AT = re.compile(r" - at `(?:(key)` in `)?\$((?:\.\w+|\[[^\]]*\])*)`$")
_ITEM = re.compile(r"\[[^\]]*\]$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_OUT_OF_RANGE = re.compile(r"(?:Number|Integer value) out of range")
_EXPECTED = {"str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false",
             "array": "an array", "object": "an object"}  # fmt: skip
_GOT = {"str": "a string", "int": "a number", "float": "a number with a fraction or an exponent",
        "bool": "true or false", "null": "null", "None": "null", "array": "an array", "object": "an object",
        "bytes": "bytes", "ext": "an extension"}  # fmt: skip


def shape_fault(fault: str) -> tuple[str, str]:
    """Give the field at fault, `BODY` for the whole, and a sentence."""
    at = _AT.search(fault)
    path, is_key = ("", False) if at is None else (at[2].lstrip("."), bool(at[1]))
    found = fault if at is None else fault[: at.start()]
    field = _ITEM.sub("", path) or BODY
    if (unknown := _UNKNOWN.fullmatch(found)) is not None:
        name = _within(path, quoted(unknown[1]))
        return name, f"Unknown field {name}."
    if (missing := _MISSING.fullmatch(found)) is not None:
        name = _within(path, missing[1])
        return name, f"{name} is missing."
    if (wrong := _WRONG_TYPE.fullmatch(found)) is not None:
        if is_key:
            return field, f"{path or BODY} has a name of a field that is not a string, but {_told(wrong[2], wrong[1])}."
        wanted = " or ".join(_EXPECTED.get(each, each) for each in wrong[1].split(" | ") if each != "null")
        return field, f"{path or BODY} must be {wanted}, not {_told(wrong[2], wrong[1])}."
    if _OUT_OF_RANGE.fullmatch(found) is not None:
        return field, f"{path or BODY} is out of range."
    return field, f"{path or 'The body'} does not have the expected form: {quoted(found)}."


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _told(got: str, expected: str) -> str:
    """Say what came. Of a number it matters whether it is a whole one if only that would do."""
    return "a number" if got == "float" and "int" not in expected.split(" | ") else _GOT.get(got, got)
