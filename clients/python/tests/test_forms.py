"""What is sent and what is read: bad input is refused by the name of its field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from scoreboard_client import AsyncScoreboard, Position, Scoreboard, requests
from scoreboard_client.nodes import Nodes
from scoreboard_client.requests import Action


def test_an_id_of_any_text_can_be_sent() -> None:
    """Slashes, signs of addresses and other scripts go into the query, encoded."""
    assert requests.score("main", "a/b&c=?#", None).target == "/scores?userId=a%2Fb%26c%3D%3F%23&boardId=main"
    assert requests.around("ü", "..", 3, None).target == "/scores/around?userId=..&boardId=%C3%BC&limit=3"
    assert json.loads(requests.increment(Action("ü\n", "a")).body)["userId"] == "ü\n"


def test_a_position_is_sent_as_epoch_and_seq() -> None:
    """A seq alone would be another event after a promotion."""
    request = requests.top("main", 5, Position(2, 40))
    assert request.target == "/scoreboard/top?boardId=main&limit=5&minEpoch=2&minSeq=40"
    query = requests.query("main", ["a"], Position(2, 40))
    assert (query.target, json.loads(query.body)) == (
        "/scores/query?minEpoch=2&minSeq=40",
        {"userIds": ["a"], "boardId": "main"},
    )


def test_what_is_not_given_is_not_sent() -> None:
    """The server's defaults are the server's."""
    assert json.loads(requests.increment(Action("bob", "a1")).body) == {
        "userId": "bob", "actionId": "a1", "boardId": "main",
    }  # fmt: skip
    full = json.loads(requests.increment(Action("bob", "a1", "week", "WIN", 3)).body)
    assert (full["boardId"], full["reason"], full["value"]) == ("week", "WIN", 3)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Action("", "a"), "user_id"),
        (lambda: Action(7, "a"), "user_id"),  # type: ignore[arg-type]
        (lambda: Action("bob", ""), "action_id"),
        (lambda: Action("bob", "\ud800"), "action_id"),
        (lambda: Action("bob", "a", ""), "board_id"),
        (lambda: Action("bob", "a", reason=""), "reason"),
        (lambda: Action("bob", "a", value=True), "value"),
        (lambda: Action("bob", "a", value=1.5), "value"),  # type: ignore[arg-type]
        (lambda: requests.query("main", "bob", None), "user_ids"),
        (lambda: requests.query("main", ["bob", ""], None), r"user_ids\[1\]"),
        (lambda: Nodes([]), "urls"),
        (lambda: Scoreboard(None), "urls"),  # type: ignore[arg-type]
        (lambda: AsyncScoreboard(5), "urls"),  # type: ignore[arg-type]
        (lambda: Nodes(["http://a", "http://a:80/"]), "twice"),
        (lambda: Nodes("board.example"), "board.example"),
        (lambda: Nodes("ftp://board.example"), "ftp"),
        (lambda: Nodes("http://user:password@board.example"), "no user"),
        (lambda: Scoreboard("http://a", deadline_s=0), "deadline_s"),
        (lambda: AsyncScoreboard("http://a", attempt_s=float("inf")), "attempt_s"),
        (lambda: Scoreboard("http://a", token=7), "token"),  # type: ignore[arg-type]
        (lambda: Scoreboard("http://a").board(""), "board_id"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(make: Callable[[], Any], field: str) -> None:
    """Before anything is sent."""
    with pytest.raises((ValueError, TypeError), match=field):
        make()


def test_a_token_of_a_file_may_end_with_a_line() -> None:
    """What is in no token is refused, and not repeated: an error ends up in a log."""
    assert requests.bearer("abc.def\n") == {"authorization": "Bearer abc.def"}
    assert requests.bearer(None) == requests.bearer("") == {}
    for bad in ("secret\nx", "secret ü", b"secret"):
        with pytest.raises((ValueError, TypeError), match="token") as raised:
            requests.bearer(bad)
        assert "secret" not in str(raised.value)


def test_a_password_in_an_address_is_not_repeated() -> None:
    """An error ends up in a log."""
    with pytest.raises(ValueError) as raised:
        Nodes("http://user:secret@board.example")
    assert "secret" not in str(raised.value)
