"""The process's log: its two forms, what never gets into it, and floods."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from server import bounds
from server.logs import REDACTED, Bounded, configure, redact

TOKEN = jwt.encode({"sub": "game", "aud": "scoreboard"}, "a-secret-that-is-long-enough-for-hs256")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def line_of(stream: io.StringIO) -> dict[str, Any]:
    """The one line that was logged."""
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert isinstance(fields, dict)
    return fields


def clean(**fields: object) -> dict[str, Any]:
    """What is left of fields when they are logged."""
    return dict(redact(None, "info", fields))


def test_a_line_is_json_where_nobody_watches() -> None:
    """Time in UTC, level and event first; then the fields."""
    stream = io.StringIO()
    configure("auto", "info", stream)
    structlog.get_logger().info("started", address="http://127.0.0.1:8080", users=5)
    fields = line_of(stream)
    assert list(fields) == ["time", "level", "event", "address", "users"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", fields["time"])
    assert (fields["level"], fields["event"], fields["users"]) == ("info", "started", 5)


def test_a_line_is_for_people_on_a_terminal() -> None:
    """Unless the configuration says otherwise, either way."""
    for layout, stream, is_json in (
        ("auto", Terminal(), False),
        ("console", io.StringIO(), False),
        ("json", Terminal(), True),
    ):
        configure(layout, "info", stream)  # type: ignore[arg-type]  # mypy takes a tuple's strings for any string
        structlog.get_logger().info("started", users=5)
        line = stream.getvalue()
        assert line.startswith("{") == is_json
        assert "started" in line


def test_the_level_decides_what_is_told() -> None:
    """Also for loggers that were made before it was configured."""
    logger = structlog.get_logger()
    stream = io.StringIO()
    configure("json", "warning", stream)
    logger.info("refused")
    logger.warning("rate_limited")
    assert line_of(stream)["event"] == "rate_limited"


def test_libraries_log_the_same_way_from_warning_on() -> None:
    """Httpx tells of every request at INFO; hypercorn's errors are worth a line."""
    stream = io.StringIO()
    configure("json", "debug", stream)
    logging.getLogger("httpx").info("HTTP Request: GET https://issuer.example/")
    logging.getLogger("hypercorn.error").warning("Error in %s: Bearer %s", "lane", TOKEN)
    fields = line_of(stream)
    assert (fields["event"], fields["logger"], fields["level"]) == ("library", "hypercorn.error", "warning")
    assert fields["message"] == f"Error in lane: Bearer {REDACTED}"


def test_an_error_of_a_library_has_its_traceback() -> None:
    """As text, without the values of variables."""
    stream = io.StringIO()
    configure("json", "info", stream)
    try:
        raise ValueError(f"cannot use {TOKEN}")
    except ValueError:
        logging.getLogger("hypercorn.error").exception("broken")
    fields = line_of(stream)
    assert fields["exception"].startswith("Traceback (most recent call last):\n")
    assert TOKEN not in stream.getvalue()


def test_python_s_warnings_are_lines_too() -> None:
    """Not loose text between the lines."""
    stream = io.StringIO()
    configure("json", "info", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in line_of(stream)["message"]


@pytest.mark.parametrize("layout", ["json", "console"])
def test_an_exception_is_told_without_what_it_quotes(layout: Any) -> None:
    """Tokens get into exception texts easily; the traceback stays readable."""
    stream = io.StringIO()
    configure(layout, "info", stream)
    local_secret = "Bearer " + TOKEN
    try:
        raise ValueError(f"bad header: {local_secret}")
    except ValueError:
        structlog.get_logger().exception("broken")
    text = stream.getvalue()
    assert "ValueError: bad header: Bearer [redacted]" in text
    assert "test_logs.py" in text
    assert TOKEN.split(".")[1] not in text


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "Authorization", "proxy-authorization", "cookie", "Set-Cookie", "token", "access_token",
        "jwt_secret", "SCOREBOARD_AUTH_JWT_SECRET", "auth.jwt_secret", "password", "signing_key", "private_key",
        "sec-websocket-protocol",
    ],
)  # fmt: skip
def test_what_is_named_like_a_secret_is_not_told(name: str) -> None:
    """Wherever it is: as a field, in a dict, in a list of headers, in bytes."""
    secret = "hush"
    fields = clean(
        **{name: secret},
        nested={"deep": {name: secret}},
        headers=[(name, secret), ("host", "a.example")],
        raw=[(name.encode(), secret.encode())],
    )
    assert secret not in repr(fields)
    assert fields[name] == REDACTED
    assert fields["headers"][1] == ["host", "a.example"]


def test_names_that_only_look_like_a_secret_s_are_told() -> None:
    """Counts of tokens and the like; and that there is none."""
    assert clean(tokens=5, token_age_s=3, secrets_checked=True, token=None) == {
        "tokens": 5,
        "token_age_s": 3,
        "secrets_checked": True,
        "token": None,
    }


SECRETS = {
    "a token": TOKEN,
    "a header": f"Bearer {TOKEN}",
    "a header with another credential": "bearer abcdefghijklmnop0123",
    "basic": "Basic Z2FtZTphLWxvbmctcGFzc3dvcmQ=",
    "a URL": "https://a.example/?boardId=main&token=hush&x=1",
    "a subprotocol": f"scoreboard.token.{TOKEN}",
    "a private key": "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----",
    "a header that PyJWT would not write": "ewogImFsZyI6IkhTMjU2In0.ewogInN1YiI6ImEifQ." + "x0123456789" * 4,
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_what_looks_like_a_secret_is_not_told(secret: str) -> None:
    """In a value, in the midst of a sentence, as a key, in an object's own words, in the event itself."""

    class Request:
        def __repr__(self) -> str:
            return f"<Request {secret}>"

    fields = clean(event=f"got {secret}", a=secret, b=[secret], c={secret: 1}, d=secret.encode(), e=Request())
    for part in re.findall(r"[A-Za-z0-9_=+/-]{14,}", secret.replace("token=hush", "token=hushhushhushhush")):
        if part not in ("-----BEGIN", "-----END"):
            assert part not in repr(fields)
    assert "hush" not in repr(fields)


def test_ordinary_values_stay_as_they_are() -> None:
    """Ids, addresses, versions, digests, sentences."""
    fields: dict[str, Any] = {
        "user": "ann",
        "address": "2001:db8::1",
        "path": "/scores/ann/around?limit=5",
        "version": "3.11.7",
        "host": "a-long-name.and-another.example",
        "digest": "ab" * 32,
        "sentence": "a bearer token is required",
        "seq": 2**53 - 1,
        "ratio": 0.5,
        "ok": True,
        "none": None,
    }
    assert clean(**fields) == fields


def test_a_value_can_neither_forge_a_line_nor_drive_a_terminal() -> None:
    """Line ends, escape sequences and reversed writing are shown, not done."""
    stream = io.StringIO()
    configure("console", "info", stream)
    nasty = "ann\n2025-01-01 [info] forged\r\x1b[2J\x9b31m\u202egpj\u2028\x00"
    structlog.get_logger().info("refused", user=nasty, **{"a\nb": 1})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not any(character in text for character in "\r\x1b\x9b\u202e\u2028\x00")
    assert "\\x0a" in text


def test_long_values_are_cut() -> None:
    """A line has an end, whatever a client sends."""
    fields = clean(path="/" + "é" * 100_000, items=list(range(10_000)), deep=[[[[[[[[["x" * 5000]]]]]]]]])
    assert fields["path"].endswith("… (100001 characters)")
    assert len(fields["path"]) < 2_100
    assert len(fields["items"]) == 100
    assert len(repr(fields["deep"])) < 2_200


def test_a_secret_at_the_cut_is_not_half_told() -> None:
    """What is cut off has been redacted before."""
    for before in range(1_900, 2_000, 7):
        assert TOKEN[:40] not in clean(text="x" * before + " " + TOKEN + "y" * 500)["text"]


def test_a_text_that_begins_many_tokens_is_one_secret() -> None:
    """What could begin a token is eaten by the one before: no text makes the search begin again and again."""
    assert clean(text="eyJ" * 30_000) == {"text": REDACTED}


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=10), st.recursive(st.text() | st.binary() | st.floats(), st.lists), max_size=4))
def test_whatever_is_logged_becomes_one_line_of_json(fields: dict[str, Any]) -> None:
    """No value makes logging fail."""
    stream = io.StringIO()
    configure("json", "info", stream)
    structlog.get_logger().info("seen", **{f"field_{name}": value for name, value in fields.items()})
    assert line_of(stream)["event"] == "seen"


def test_nobody_reading_stops_nothing() -> None:
    """A broken pipe or a closed stream loses the line, not the server."""
    closing = io.StringIO()
    for stream in (Broken(), closing):
        configure("json", "info", stream)
        if stream is closing:
            closing.close()
        structlog.get_logger().info("started")
        logging.getLogger("hypercorn.error").error("broken")


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_flood_is_told_in_a_few_lines_and_a_count() -> None:
    """Three lines of a kind in a second; the next line says how many were left out."""
    clock = Clock()
    with structlog.testing.capture_logs() as lines:
        bounded = Bounded(structlog.get_logger(), 3, clock_s=clock)
        for number in range(100):
            bounded.warning("refused", number=number)
        assert [line["number"] for line in lines] == [0, 1, 2]
        bounded.warning("rate_limited")
        assert len(lines) == 4, "another kind has its own room"
        clock.now_s = 1.0
        bounded.warning("refused", number=100)
        assert lines[-1]["left_out"] == 97
        bounded.warning("refused", number=101)
        assert "left_out" not in lines[-1], "told once"


def test_what_was_left_out_is_told_in_the_end() -> None:
    """Also when the flood just stops."""
    with structlog.testing.capture_logs() as lines:
        bounded = Bounded(structlog.get_logger(), 1, clock_s=Clock())
        for _ in range(5):
            bounded.info("refused")
        bounded.error("broken")
        bounded.flush()
        assert lines[-1] == {"event": "refused", "left_out": 4, "log_level": "warning"}
        assert [line["log_level"] for line in lines] == ["info", "error", "warning"]
        bounded.flush()
        assert len(lines) == 3


def test_made_up_event_names_are_a_bug_of_ours() -> None:
    """A name that comes from a client would make the table grow, and the flood go through."""
    bounded = Bounded(structlog.get_logger(), 1, clock_s=Clock())
    with structlog.testing.capture_logs():
        for number in range(bounds.LOG_EVENT_KINDS_MAX):
            bounded.info(f"kind-{number}")
        with pytest.raises(AssertionError):
            bounded.info("one-more")
