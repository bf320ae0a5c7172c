"""The metrics of a member of a quorum: what a scrape says of its role, its appends and the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from server.http.messages import Refused
from server.metrics import Metrics
from server.quorum.words import Word, encode
from server.role import State
from tests.quorum.members import ALARM_SECONDS, leads, member, step_down, until
from tests.quorum.model_stream import Cloud
from tests.quorum.test_member import has, post
from tests.server.node.nodes import Served
from tests.server.node.test_start import client_of


async def scrape(served: Served) -> dict[str, float]:
    """Give every sample of the quorum by its name and labels, as Prometheus reads them."""
    async with client_of(served.url) as client:
        text = (await client.get("/metrics")).body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    named = [
        (sample.name + "".join(f" {value}" for value in sample.labels.values()), sample.value) for sample in samples
    ]
    found = {name: value for name, value in named if name.startswith("scoreboard_quorum_")}
    assert len(found) == sum(name.startswith("scoreboard_quorum_") for name, _ in named), "a series comes twice"
    return found


async def scraped(served: Served, name: str, value: float) -> dict[str, float]:
    """Scrape until a sample has a value."""
    with trio.fail_after(ALARM_SECONDS):
        while True:
            found = await scrape(served)
            if found.get(name) == value:
                return found
            await trio.sleep(0.05)


async def test_a_scrape_tells_the_role_the_appends_and_the_others(tmp_path: Path) -> None:
    """On the leader and on a standby, and after the leader has stepped down."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        async with member(tmp_path, cloud, "b") as b:
            await post(a, "one")
            await has(b.node, a.node.scoreboard.seq)
            await until(b, State.FOLLOWING)
            own = await scraped(a, "scoreboard_quorum_peer_lag_records b", 0)
            assert (own["scoreboard_quorum_role leading"], own["scoreboard_quorum_role following"]) == (1, 0)
            assert sum(value for name, value in own.items() if "_role " in name) == 1
            assert (own["scoreboard_quorum_epoch"], own["scoreboard_quorum_takeovers_total"]) == (2, 1)
            assert own["scoreboard_quorum_depositions_total"] == own["scoreboard_quorum_unknown_outcomes_total"] == 0
            appended = cloud.last - 1  # the first frame, the epoch's, is a bid and no append
            assert own["scoreboard_quorum_append_seconds_count"] == appended
            assert own["scoreboard_quorum_stream_first"] == 1
            copies = {name: value for name, value in own.items() if name.startswith("scoreboard_quorum_server_")}
            assert copies == {
                "scoreboard_quorum_server_current n2": 1,
                "scoreboard_quorum_server_current n3": 0,
                "scoreboard_quorum_server_lag n2": 0,
                "scoreboard_quorum_server_lag n3": 7,
            }
            assert 0 <= own["scoreboard_quorum_peer_heard_seconds b"] < ALARM_SECONDS
            seen = await scraped(b, "scoreboard_quorum_role following", 1)
            assert seen["scoreboard_quorum_stream_last"] != seen["scoreboard_quorum_stream_last"], (
                "NaN: it did not look"
            )
            assert seen["scoreboard_quorum_append_seconds_count"] == 0
            await step_down(a)
            await leads(b)
            after = await scraped(a, "scoreboard_quorum_role following", 1)
            assert after["scoreboard_quorum_depositions_total"] == 1


async def test_a_write_in_doubt_is_counted(tmp_path: Path) -> None:
    """Once, however many tries it takes; meanwhile the leader does not step down: nobody could take over."""
    cloud, tries = Cloud(), trio.Event()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        seq = a.node.scoreboard.seq
        cloud.cut("a")
        assert (await post(a, "one")).json()["error"]["code"] == "OUTCOME_UNKNOWN"
        cloud.streams["a"].on_place = lambda _place: tries.set() if len(cloud.late) > 3 else None
        with trio.fail_after(ALARM_SECONDS):
            await tries.wait()
        assert a.node.member is not None
        with pytest.raises(Refused, match="No majority of the log's servers answers"):
            await a.node.member.step_down()
        cloud.mend("a")
        await has(a.node, seq + 1)
        assert (await scrape(a))["scoreboard_quorum_unknown_outcomes_total"] == 1


async def test_nodes_of_one_name_do_not_spoil_a_scrape(tmp_path: Path) -> None:
    """The second has the id of its process in its label."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        for number in (1, 2):
            word = Word(
                node_id=f"id{number}", name="twin", url=f"http://10.0.0.{number}:80", public_url=None, role="following",
                leads=False, epoch=1, seq=0, place=0,
            )  # fmt: skip
            cloud.tell(encode(word), "nobody")
        seq = a.node.scoreboard.seq
        found = await scraped(a, "scoreboard_quorum_peer_lag_records twin id2", seq)
        assert found["scoreboard_quorum_peer_lag_records twin"] == seq


def test_a_node_of_no_quorum_has_none_of_them() -> None:
    """An alert on them can't fire by mistake."""
    assert not re.search("^scoreboard_quorum_", Metrics().render().decode(), re.MULTILINE)
