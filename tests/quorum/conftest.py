"""Three servers of NATS for the tests that need real ones, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.quorum.servers import Cluster


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers that are ready."""
    cluster = Cluster(tmp_path_factory.mktemp("nats"))
    try:
        cluster.start()
        trio.run(cluster.wait_ready)
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """The three servers of all tests. Those that a test has paused or killed run again at its end."""
    yield session_cluster
    for server in session_cluster.servers.values():
        if server.is_running:
            server.resume()
    session_cluster.start()
    trio.run(session_cluster.wait_ready)
