"""The table of routes: what is found where."""

from __future__ import annotations

import pytest

from server.api.routes import ROUTES, allowed, find
from server.http.messages import Refused


def test_every_route_is_found_by_its_own_path() -> None:
    """With something for its variables."""
    for route in ROUTES:
        names = ("userId", "actionId", "boardId", "reversalId", "reviewId", "importId", "name")
        path = route.path
        for name in names:
            path = path.replace(f"{{{name}}}", "x")
        methods, params = find(path, "userId=ann&boardId=cup")
        assert methods[route.method] is route
        assert set(params) == {name for name in names if f"{{{name}}}" in route.path}


def test_no_two_routes_are_the_same() -> None:
    """Neither by method and path nor by handler."""
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert len({route.handler for route in ROUTES}) == len(ROUTES)


def test_variables_are_decoded_after_the_path_was_split() -> None:
    """So an id may look like a part of a path."""
    assert find("/scores/a%2Faround")[1] == {"userId": "a/around"}
    methods, params = find("/scores/a%2Fb/around")
    assert (methods["GET"].handler, params) == ("around", {"userId": "a/b"})


def test_a_path_without_a_variable_goes_first() -> None:
    """A user called `increment` is spelled another way."""
    assert set(find("/scores/increment")[0]) == {"POST"}
    methods, params = find("/scores/%69ncrement")
    assert (methods["GET"].handler, params) == ("score", {"userId": "increment"})


@pytest.mark.parametrize("path", ["", "*", "//", "/nothing", "/scores/a/b", "/docs/", "/Docs", "/docs%2F"])
def test_what_is_not_there_is_not_found(path: str) -> None:
    """No guessing: not by case, not by a slash more."""
    with pytest.raises(Refused) as caught:
        find(path)
    assert caught.value.status == 404


def test_the_path_of_the_neighbours_is_a_user_too() -> None:
    """Without `userId` in the query it is the score of the user `around`, as it always was."""
    assert find("/scores/around", "userId=ann")[0]["GET"].handler == "around_by_query"
    methods, params = find("/scores/around", "boardId=main")
    assert (methods["GET"].handler, params) == ("score", {"userId": "around"})


def test_a_board_may_have_the_name_of_a_path() -> None:
    """Without `boardId` in the query, /boards/reset is the board `reset`."""
    assert find("/boards/reset", "boardId=cup")[0]["POST"].handler == "reset_board_by_query"
    methods, params = find("/boards/reset")
    assert (methods["PUT"].handler, params) == ("put_board", {"boardId": "reset"})
    assert methods["POST"].handler == "reset_board_by_query", "which says that boardId is missing"
    assert find("/boards/a%2Fb/reset")[1] == {"boardId": "a/b"}


def test_allow_names_what_comes_of_itself() -> None:
    """HEAD beside GET, OPTIONS always."""
    assert allowed(find("/scores/increment")[0]) == "POST, OPTIONS"
    assert allowed(find("/scores/ann")[0]) == "GET, HEAD, OPTIONS"
    assert allowed(find("/boards/cup")[0]) == "GET, PUT, DELETE, HEAD, OPTIONS"
