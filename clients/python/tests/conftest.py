"""One leader for all tests. One of them kills it, and starts it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from board_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a leader that others use too: a test takes users, actions and a board of its own."""
    with Server(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def board_id(request: pytest.FixtureRequest, server: Server) -> str:
    """Give a board that is the test's own, made now. An actionId is of one board only."""
    name = str(request.node.name)[:100]
    server.make_board(name)
    return name
