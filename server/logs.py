"""The log of the process: structured lines on standard error, JSON or console. (The log of events is `engine.log`.)

    configure("json", "info")
    structlog.get_logger().info("started", address="127.0.0.1:8080")

Rules:
- A line begins with `time` (UTC, ISO 8601), `level` and `event`. Events are short constant names (`started`, `refused`
  …) that operators count or alert on. What differs goes into fields, never into the name.
- No credential gets into a line. A value is replaced if its name or its looks are those of a credential, anywhere: in
  keys, nested values, exception texts. Objects are turned into text and searched too. Replacing too much costs a word;
  replacing too little costs an account.
- A value can't forge a line or control a terminal: control characters are escaped, and long values are cut.
- What clients can cause goes through `Bounded`, so that they can't fill the disk or hide the line that matters.
- The lines of libraries are logged from WARNING on, as the event `library`, under the same rules.
- Writing never fails: a server goes on when nobody reads its standard error.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from server import bounds

REDACTED = "[redacted]"

_TRACE_KEYS = {"exception", "stack"}

_SECRET_NAMES = re.compile(
    r"(.*[_. ])?(authorization|cookie|secret|password|passwd|passphrase|token|jwt|credentials?"
    r"|signing_key|private_key|api_key|sec_websocket_protocol)",
    re.DOTALL,
)

_SECRET_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A JWT's header and its claims begin with the base64url of '{"'. A match takes in all that could begin another
    # match, so that searching takes linear time for every input.
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"), REDACTED),
    # Any three parts with dots between them. The look-behind keeps this linear too.
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{40,}"), REDACTED),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\b(token|access_token|jwt|secret|password|api_key)=[^&\s\"']+", re.IGNORECASE), rf"\1={REDACTED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL), REDACTED),
)

_ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    # C0 and C1 controls, line separators, characters that change the direction of writing.
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_ESCAPES_BUT_LINES = {code: escape for code, escape in _ESCAPES.items() if code != ord("\n")}


class _Lenient:
    """A text stream that ignores errors: its reader may be gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure(
    layout: Literal["auto", "json", "console"] = "auto", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up the log of the process and its libraries. The last call counts. "auto": console on a terminal, or JSON."""
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
        # Loggers are made at the import of their modules, which comes before this.
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
    # Exceptions become text before redacting. The console's own formatter would print the values of local variables.
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
    """Replace credentials, escape control characters, cut what is long. A processor of structlog."""
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
                return [_clean(value[0], depth + 1), REDACTED]  # a header as (name, value)
            return [_clean(each, depth + 1) for each in list(value)[: bounds.LOG_ITEMS_MAX]]
    return _clean_text(repr(value))


def _clean_text(
    text: str, characters_max: int = bounds.LOG_TEXT_CHARACTERS_MAX, escapes: Mapping[int, str] = _ESCAPES
) -> str:
    for pattern, replacement in _SECRET_LOOKS:
        text = pattern.sub(replacement, text)
    # Cut after redacting: the patterns would not know half a token.
    if len(text) > characters_max:
        text = f"{text[:characters_max]}… ({len(text)} characters)"
    return text.translate(escapes)


@dataclass(slots=True)
class _Kind:
    """The lines of one kind of event in this second, and the lines left out since the last one."""

    second: int = -1
    told: int = 0
    left_out: int = 0


class Bounded:
    """A logger for what clients can cause: at most `per_second` lines of each kind of event in a second.

    The next line of a kind has the number of lines left out before (`left_out`). Each kind has its own bound: a flood
    of refusals hides no other event. `clock_s` never goes back.
    """

    def __init__(
        self, logger: FilteringBoundLogger, per_second: int, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        assert per_second >= 1
        self._logger = logger
        self._per_second = per_second
        self._clock_s = clock_s
        self._kinds: dict[str, _Kind] = {}

    def info(self, event: str, **fields: Any) -> None:
        """Log something, within the bound."""
        self._tell(self._logger.info, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._tell(self._logger.warning, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._tell(self._logger.error, event, fields)

    def flush(self) -> None:
        """Log how many lines were left out: at the end of the process, or every now and then."""
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
