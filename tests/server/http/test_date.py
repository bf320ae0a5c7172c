"""The end of a response head: a date of this second, and `connection: close` on the last answer."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest

from server.http import date
from server.http.date import head_end


class Clock:
    """The wall clock of the module, turned by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 784_111_777.0
        monkeypatch.setattr(date, "time", self)
        date._head_ends.cache_clear()

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
