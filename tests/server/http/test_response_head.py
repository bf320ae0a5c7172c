"""The bytes of an answer: its head, a date of this second, `connection: close` on the last one, its body."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest

from server.http import response_head
from server.http.messages import Response
from server.http.response_head import head_end, http_bytes

CLOSE = b"connection: close\r\n\r\n"


def test_the_bytes_of_an_answer_that_ends_its_connection() -> None:
    """Status line with its reason, type, length, headers, the end that it is given, body."""
    response = Response(431, b"{}", headers=(("x-one", "1"),))
    assert http_bytes(response, CLOSE) == (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\nx-one: 1\r\nconnection: close\r\n\r\n{}"
    )


def test_an_answer_without_content_describes_none() -> None:
    """204 and 304 have neither type nor length; an answer to HEAD tells the length of what it leaves out."""
    assert http_bytes(Response(304, headers=(("etag", '"x"'),)), CLOSE) == (
        b'HTTP/1.1 304 Not Modified\r\netag: "x"\r\nconnection: close\r\n\r\n'
    )
    head = http_bytes(Response(200, b"12345", omit_body=True), CLOSE)
    assert b"content-length: 5\r\n" in head
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("value", ["a\r\nset-cookie: x", "a\nb", "a\rb"])
def test_a_header_can_not_smuggle_another_in(value: str) -> None:
    """A line break in a header's value is a bug of ours, and stops there."""
    with pytest.raises(AssertionError):
        http_bytes(Response(200, headers=(("x-one", value),)), CLOSE)


class Clock:
    """The wall clock of the module, turned by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 784_111_777.0
        monkeypatch.setattr(response_head, "time", self)
        response_head._head_ends.cache_clear()

    def time(self) -> float:
        """Seconds since 1970."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_date_has_the_form_that_http_wants(clock: Clock) -> None:
    """IMF-fixdate, in GMT (RFC 9110, section 5.6.7), and the empty line after it."""
    assert head_end(last=False) == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"


def test_the_last_answer_says_so(clock: Clock) -> None:
    """With the same date."""
    assert head_end(last=True) == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\n\r\n"


def test_a_date_is_made_once_a_second(clock: Clock) -> None:
    """The same bytes within a second, others in the next one, and right again if the clock is set back."""
    first = head_end(last=False)
    clock.now_s += 0.9
    assert head_end(last=False) is first
    clock.now_s += 0.1
    assert head_end(last=False) == first.replace(b":37", b":38")
    clock.now_s -= 3600
    assert head_end(last=False) == b"date: Sun, 06 Nov 1994 07:49:38 GMT\r\n\r\n"


def test_the_real_date_is_of_now() -> None:
    """To the second, by the real clock."""
    before = int(time.time())
    told = head_end(last=False).removeprefix(b"date: ").removesuffix(b"\r\n\r\n").decode()
    assert before <= parsedate_to_datetime(told).timestamp() <= time.time()
