"""The log of the process: structured lines on standard error, JSON or console. (The log of events is `engine.log`.)

Rules:
- A line has `time` (UTC, ISO 8601), `level` and `event` first. Events are short constant names (`started`, `refused`,
  `rate_limited`, `recovery` …) that somebody may count or alarm on; what differs goes into fields, never into the name.
- No credential gets out, whoever logs it. Whatever is named like one is replaced, and so is whatever looks like one,
  anywhere in a line: keys, nested values, exception texts. A false alarm costs a word in a line, the other mistake an
  account; so what is no plain value is turned into text first, and that is searched too.
- A value cannot forge a line or drive a terminal: control characters are shown as escapes, and long values are cut.
- What clients can cause goes through `Bounded`, so that nobody can fill the disk or drown the line that matters.
- What libraries log by themselves comes from WARNING on, as the event `library`, the same way.
- Writing never fails: a server does not stop because nobody reads its standard error any more.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from server import bounds

REDACTED = "[redacted]"

_TRACE_KEYS = {"exception", "stack"}

_SECRET_NAMES = re.compile(
    r"(.*[_. ])?(authorization|cookie|secret|password|passwd|passphrase|token|jwt|credentials?"
    r"|signing_key|private_key|api_key|sec_websocket_protocol)",
    re.DOTALL,
)

_SECRET_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # base64url of '{"' begins a JWT's header and its claims. A match eats all that could begin another one, so that
    # searching takes linear time whatever a client sends.
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"), REDACTED),
    # Three parts, however the header began. The look-behind keeps this linear too.
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{40,}"), REDACTED),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\b(token|access_token|jwt|secret|password|api_key)=[^&\s\"']+", re.IGNORECASE), rf"\1={REDACTED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL), REDACTED),
)

_ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    # C0 and C1 controls; line separators; what turns the direction of writing.
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_ESCAPES_BUT_LINES = {code: escape for code, escape in _ESCAPES.items() if code != ord("\n")}


class _Lenient:
    """A text stream whose reader may be gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


def configure(
    layout: Literal["auto", "json", "console"] = "auto", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up the log of the whole process, libraries included. May be called again; the last call counts.

    "auto" is console on a terminal and JSON elsewhere.
    """
    stream = stream or sys.stderr
    is_terminal = stream.isatty()
    as_json = layout == "json" or (layout == "auto" and not is_terminal)
    finish = _finish(as_json=as_json, colors=is_terminal)
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    lenient: Any = _Lenient(stream)
    structlog.configure(
        processors=[structlog.processors.add_log_level, stamp, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=lenient),
        # Loggers are made when modules are imported, which is before this.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(lenient)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, stamp, _from_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.captureWarnings(capture=True)


def _finish(*, as_json: bool, colors: bool) -> list[Processor]:
    # Exceptions become text before anything is redacted; the console's own formatter would print the locals' values.
    last: Processor = structlog.processors.JSONRenderer()
    if not as_json:
        last = structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
    return [structlog.processors.format_exc_info, redact, _in_order, last]


def _from_library(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["message"] = event.pop("event")
    event["event"] = "library"
    return event


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    return {**first, **event}


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> MutableMapping[str, Any]:
    """A processor: nothing that is or looks like a credential, no control characters, nothing endless."""
    clean: dict[str, Any] = {}
    for name, value in event.items():
        if name in _TRACE_KEYS:
            clean[name] = _clean_text(str(value), bounds.LOG_TRACE_CHARACTERS_MAX, _ESCAPES_BUT_LINES)
        else:
            clean[_clean_text(name)] = _clean_field(name, value, 0)
    return clean


def _clean_field(name: object, value: object, depth: int) -> object:
    return REDACTED if value is not None and _names_a_secret(name) else _clean(value, depth)


def _names_a_secret(name: object) -> bool:
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    return isinstance(name, str) and _SECRET_NAMES.fullmatch(name.lower().replace("-", "_")) is not None


def _clean(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, bytes):
        return _clean_text(value.decode("utf-8", "backslashreplace"))
    if depth < bounds.LOG_DEPTH_MAX:
        if isinstance(value, Mapping):
            items = list(value.items())[: bounds.LOG_ITEMS_MAX]
            return {_clean_text(str(name)): _clean_field(name, each, depth + 1) for name, each in items}
        if isinstance(value, list | tuple | set | frozenset):
            if isinstance(value, list | tuple) and len(value) == 2 and _names_a_secret(value[0]):
                return [_clean(value[0], depth + 1), REDACTED]  # a header, as servers pass them around
            return [_clean(each, depth + 1) for each in list(value)[: bounds.LOG_ITEMS_MAX]]
    return _clean_text(repr(value))


def _clean_text(
    text: str, characters_max: int = bounds.LOG_TEXT_CHARACTERS_MAX, escapes: Mapping[int, str] = _ESCAPES
) -> str:
    for pattern, replacement in _SECRET_LOOKS:
        text = pattern.sub(replacement, text)
    # Cut after redacting: half a token is still a token to a pattern that knows only whole ones.
    if len(text) > characters_max:
        text = f"{text[:characters_max]}… ({len(text)} characters)"
    return text.translate(escapes)


class Logger(Protocol):
    """What `Bounded` needs of a logger; structlog's has it."""

    def info(self, event: str, **fields: Any) -> Any:
        """Tell something."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Tell something that somebody should look at."""

    def error(self, event: str, **fields: Any) -> Any:
        """Tell something that is wrong."""


class _Kind:
    """What was told of one kind of event in this second, and what was left out since the last line."""

    __slots__ = ("left_out", "second", "told")

    def __init__(self) -> None:
        self.second = -1
        self.told = 0
        self.left_out = 0


class Bounded:
    """A logger for what clients can cause: at most `per_second` lines of one kind of event in each second.

    What is left out is counted, and the next line of that kind says how many (`left_out`). Kinds do not take lines from
    each other: a flood of refusals leaves room to say that a limit was hit. `clock_s` never goes back.
    """

    def __init__(self, logger: Logger, per_second: int, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        assert per_second >= 1
        self._logger = logger
        self._per_second = per_second
        self._clock_s = clock_s
        self._kinds: dict[str, _Kind] = {}

    def info(self, event: str, **fields: Any) -> None:
        """Tell something, if there is room."""
        self._tell(self._logger.info, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Tell something that somebody should look at, if there is room."""
        self._tell(self._logger.warning, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Tell something that is wrong, if there is room."""
        self._tell(self._logger.error, event, fields)

    def flush(self) -> None:
        """Tell what was left out and not yet told: at the end of the process, or every now and then."""
        for event, kind in self._kinds.items():
            if kind.left_out:
                left_out, kind.left_out = kind.left_out, 0
                self._logger.warning(event, left_out=left_out)

    def _tell(self, tell: Callable[..., Any], event: str, fields: dict[str, Any]) -> None:
        kind = self._kinds.setdefault(event, _Kind())
        assert len(self._kinds) <= bounds.LOG_EVENT_KINDS_MAX, "events are constant names"
        second = int(self._clock_s())
        if second != kind.second:
            kind.second, kind.told = second, 0
        if kind.told >= self._per_second:
            kind.left_out += 1
            return
        kind.told += 1
        if kind.left_out:
            fields = {**fields, "left_out": kind.left_out}
            kind.left_out = 0
        tell(event, **fields)
