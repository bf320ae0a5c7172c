"""The harness must be able to say no: each of its checks finds what it must find."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.leader import token
from tests.hostile import harness
from tests.hostile.attack import Attack, each_refused, head, post
from tests.hostile.harness import Range, attack, beginning
from tests.hostile.honest import Honest
from tests.hostile.target import Target, replies_in, serving


def nothing(_target: Target) -> None:
    """An attack that does nothing."""


NOTHING = Attack("nothing", "", nothing)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    """A server with an honest client beside it."""
    with serving(tmp_path_factory.mktemp("harness")) as target, beginning(target, token("admin")) as place:
        yield place


def test_nothing_is_survived(place: Range) -> None:
    """So a fault that a test below finds is the one that it made."""
    assert attack(place, NOTHING).startswith("nothing: ")


@pytest.mark.parametrize(
    ("bound", "words"),
    [("FILES_SLACK", "files"), ("RSS_SLACK_BYTES", "of memory"), ("PEAK_SLACK_BYTES", "at the peak")],
)
def test_too_much_is_found(place: Range, monkeypatch: pytest.MonkeyPatch, bound: str, words: str) -> None:
    """The server has more files or memory than it may."""
    monkeypatch.setattr(harness, bound, -(2**40))
    monkeypatch.setattr(harness, "BACK_SECONDS_MAX", 0.1)
    with pytest.raises(AssertionError, match=words):
        attack(place, NOTHING)


def test_an_answer_that_is_not_a_refusal_is_found(place: Range) -> None:
    """A table of requests says which one was let through, and which one was taken for two."""
    good = head("GET /healthz HTTP/1.1")
    with pytest.raises(AssertionError, match="let through: 200"):
        each_refused(place.target, {"let through": (good, 400)})
    with pytest.raises(AssertionError, match=r"taken for two: .* instead of one answer"):
        each_refused(place.target, {"taken for two": (good + good, 200)})


def test_an_answer_that_was_cut_off_is_found() -> None:
    """Half an answer is none."""
    with pytest.raises(AssertionError, match="was cut off"):
        replies_in(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n123")


def test_an_honest_client_that_is_not_served_is_found(place: Range) -> None:
    """A second honest client finds its actions counted already; one without a server gets no answer."""
    second = Honest(place.target, token("admin"))
    with pytest.raises(AssertionError, match="was not served"):
        second.start()
    second.stop()


def test_a_server_that_has_ended_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The harness finds it, and so does the honest client."""
    with serving(tmp_path_factory.mktemp("ended")) as target:
        [reply] = target.ask(post("/scores/increment", b'{"userId":"a","actionId":"b"}', token("admin")))
        assert json.loads(reply.body)["newScore"] == 10
        honest = Honest(target, token("admin"))
        honest.start()
        place = Range(target, honest, target.open_files(), target.rss_bytes())
        with pytest.raises(AssertionError, match="has ended"):
            attack(place, Attack("the end", "", Target.kill))
        honest.stop()
        with pytest.raises(AssertionError, match="was not served"):
            honest.check()
