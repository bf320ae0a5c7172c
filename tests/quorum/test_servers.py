"""The servers of NATS that other tests use: they start, find each other, and survive what tests do to them."""

from __future__ import annotations

from pathlib import Path

from tests.quorum.servers import Cluster


async def test_three_servers_agree_and_go_on_with_two(cluster: Cluster) -> None:
    """One that does not lead JetStream's group is killed, and comes back."""
    leader = (await cluster["n1"].ask("/jsz"))["meta_cluster"]["leader"]
    other = next(server for server in cluster.servers.values() if server.name != leader)
    other.kill()
    assert not other.is_running
    assert await other.ask("/jsz") is None
    await cluster.wait_ready()
    other.start()
    await cluster.wait_ready(other.name)
    assert (await other.ask("/jsz"))["meta_cluster"]["leader"] == leader


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
