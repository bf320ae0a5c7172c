"""The servers of NATS that other tests use: they start, find each other, and survive what tests do to them."""

from __future__ import annotations

from pathlib import Path

from tests.quorum.servers import Cluster


async def test_three_servers_agree_and_go_on_with_two(tmp_path: Path) -> None:
    """The leader of JetStream's group is killed: the others agree on a new one, and it comes back."""
    async with Cluster(tmp_path) as cluster:
        await cluster.wait_ready()
        leader = (await cluster["n1"].ask("/jsz"))["meta_cluster"]["leader"]
        cluster[leader].kill()
        assert not cluster[leader].is_running
        await cluster.wait_ready()
        cluster[leader].start()
        await cluster.wait_ready(leader)
    assert not any(server.is_running for server in cluster.servers.values())


async def test_a_paused_server_says_nothing_until_it_goes_on(tmp_path: Path) -> None:
    """A server alone; it ends on SIGTERM."""
    async with Cluster(tmp_path, size=1) as cluster:
        await cluster.wait_ready()
        cluster["n1"].pause()
        assert await cluster["n1"].ask("/varz") is None
        cluster["n1"].resume()
        await cluster.wait_ready()
        assert (await cluster["n1"].ask("/varz"))["max_payload"] == 8 * 2**20
        cluster["n1"].stop()
        assert "Server Exiting" in cluster["n1"].log()
