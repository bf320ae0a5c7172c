"""The settings of the streams and their servers: made once, and refused by name where something would get lost."""

from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine.record import Tail, chain_start
from server.quorum.nats_api import State, StreamInfo, beat_stream
from server.quorum.nats_client import opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_protocol import Info
from server.quorum.nats_setup import (
    ask_info,
    beat_config,
    check_info,
    check_server,
    create,
    log_config,
    metadata_of,
    origin_of,
)
from server.quorum.nats_stream import NatsStream
from server.quorum.stream import Origin, StreamRefused
from server.settings.quorum import parse_server
from tests.quorum.patience import beat, put
from tests.quorum.servers import Cluster

LOG_ID = bytes(range(16))
EMPTY = Origin(Tail(LOG_ID, 1, 0, chain_start(LOG_ID)))
IMPORTED = Origin(Tail(LOG_ID, 7, 2**53 - 1, 2**32 - 1))
ONE = NatsOptions(servers=["nats://127.0.0.1:1"], stream="log")
_numbers = count(1)


def named(cluster: Cluster, **more: Any) -> NatsOptions:
    return NatsOptions(servers=cluster.urls, stream=f"setup-{next(_numbers)}", **more)


async def created(options: NatsOptions, origin: Origin = EMPTY) -> None:
    async with opened(options, name="init", uniform=random.uniform) as client:
        await create(client, options, origin)


# ---- on real servers -------------------------------------------------------------------------------------------------


async def test_making_the_streams_twice_changes_nothing(cluster: Cluster) -> None:
    """What was placed stays. Another log finds them taken."""
    options = named(cluster)
    await created(options, IMPORTED)
    async with NatsStream.open(options, name="node") as stream:
        assert stream.origin == IMPORTED
        await put(stream, 0, b"first")
        await created(options, IMPORTED)
        assert (await stream.bounds()).last == 1
        group = (await stream.info()).cluster
        assert {group.leader, *(peer.name for peer in group.replicas)} == {"n1", "n2", "n3"}
        with pytest.raises(StreamRefused, match="holds another log"):
            await created(options, EMPTY)


async def test_a_start_that_was_killed_between_the_two_streams_is_made_whole(cluster: Cluster) -> None:
    """The beats' stream is missing: opening refuses it, and making both adds it."""
    options = named(cluster)
    await created(options)
    async with opened(options, name="operator", uniform=random.uniform) as client:
        await client.request(f"$JS.API.STREAM.DELETE.{beat_stream(options.stream)}")
    with pytest.raises(StreamRefused, match="scoreboard quorum init"):
        async with NatsStream.open(options, name="node"):
            pytest.fail("it opened")
    await created(options)
    async with NatsStream.open(options, name="node") as stream:
        await beat(stream, b"beat")


@pytest.mark.parametrize(
    ("setting", "value"), [("num_replicas", 1), ("max_age", 10**12), ("discard", "old"), ("allow_direct", True)]
)
async def test_a_stream_that_somebody_made_otherwise_is_refused(cluster: Cluster, setting: str, value: object) -> None:
    """By whoever opens it and by whoever would make it. The setting is named, with what mends it."""
    options = named(cluster)
    config = log_config(options, EMPTY) | {setting: value}
    async with opened(options, name="operator", uniform=random.uniform) as client:
        await client.request(f"$JS.API.STREAM.CREATE.{options.stream}", json.dumps(config).encode())
    with pytest.raises(StreamRefused, match=f"has {setting} ") as refused:
        await created(options)
    assert refused.value.key == setting
    await created_beats(options)
    with pytest.raises(StreamRefused, match=f"has {setting} ") as refused:
        async with NatsStream.open(options, name="node"):
            pytest.fail("it opened")
    assert options.stream in str(refused.value)


async def created_beats(options: NatsOptions) -> None:
    async with opened(options, name="operator", uniform=random.uniform) as client:
        name = beat_stream(options.stream)
        await client.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(beat_config(options)).encode())
        await ask_info(client, name)


async def test_a_stream_that_is_not_there_says_how_to_make_it(cluster: Cluster) -> None:
    with pytest.raises(StreamRefused, match="scoreboard quorum init") as refused:
        async with NatsStream.open(named(cluster), name="node"):
            pytest.fail("it opened")
    assert refused.value.key == "quorum.stream"


async def test_a_subject_that_another_stream_takes_is_refused(cluster: Cluster) -> None:
    options = named(cluster)
    config = {"name": f"{options.stream}-other", "subjects": [f"scoreboard.{options.stream}.*"], "storage": "memory"}
    async with opened(options, name="operator", uniform=random.uniform) as client:
        await client.request(f"$JS.API.STREAM.CREATE.{config['name']}", json.dumps(config).encode())
        with pytest.raises(StreamRefused, match="Another stream takes its subject"):
            await create(client, options, EMPTY)
        await client.request(f"$JS.API.STREAM.DELETE.{config['name']}")


async def test_one_server_cannot_hold_three_copies(tmp_path: Path) -> None:
    """It says what is missing: two more servers."""
    async with Cluster(tmp_path, size=1) as alone:
        await alone.wait_ready()
        with pytest.raises(StreamRefused, match="cannot hold 3 copies") as refused:
            await created(named(alone))
    assert refused.value.key == "num_replicas"


async def test_a_server_whose_max_payload_is_the_usual_one_is_refused(tmp_path: Path) -> None:
    """1 MiB: a long frame would find no way in."""
    async with Cluster(tmp_path, size=1, max_payload="1MB") as alone:
        await alone.wait_ready()
        with pytest.raises(StreamRefused, match="max_payload 1048576; wanted is 4194304 or more") as refused:
            await created(named(alone))
    assert refused.value.remedy == "Write into its nats-server.conf: max_payload: 4MB"


# ---- the tables ------------------------------------------------------------------------------------------------------


def info(config: dict[str, Any]) -> StreamInfo:
    return StreamInfo(config=config, state=State(messages=0, bytes=0, first_seq=0, last_seq=0))


WRONG = {
    "sealed": True,
    "retention": "interest",
    "max_age": 1,
    "max_bytes": 10**9,
    "max_msg_size": 10**6,
    "allow_direct": True,
    "allow_rollup_hdrs": True,
    "deny_purge": True,
    "no_ack": True,
    "mirror": {"name": "other"},
    "sources": [{"name": "other"}],
    "republish": {"src": ">", "dest": "x"},
    "subject_transform": {"src": "a", "dest": "b"},
    "first_seq": 100,
    "persist_mode": "async",
    "allow_atomic": True,
    "allow_batched": True,
    "allow_msg_ttl": True,
    "allow_msg_counter": True,
    "allow_msg_schedules": True,
    "subjects": ["other"],
    "num_replicas": 5,
}


@pytest.mark.parametrize(
    ("setting", "value"),
    [*WRONG.items(), ("storage", "memory"), ("discard", "old"), ("max_msgs", 9), ("max_msgs_per_subject", 1)],
)
def test_each_setting_of_the_log_that_would_lose_something_is_refused(setting: str, value: object) -> None:
    with pytest.raises(StreamRefused, match=f"the stream log has {setting} .*; wanted is ") as refused:
        check_info(info(log_config(ONE, EMPTY) | {setting: value}), ONE)
    assert refused.value.key == setting
    assert refused.value.remedy
    assert "{" not in refused.value.remedy


@pytest.mark.parametrize(
    ("setting", "value"), [*WRONG.items(), ("storage", "file"), ("discard", "new"), ("max_msgs", -1), ("max_msgs", 2)]
)
def test_each_setting_of_the_beats_that_would_lose_something_is_refused(setting: str, value: object) -> None:
    with pytest.raises(StreamRefused, match=f"the stream log_BEAT has {setting} "):
        check_info(info(beat_config(ONE) | {setting: value}), ONE)


@pytest.mark.parametrize("missing", ["storage", "discard", "deny_delete", "retention", "subjects", "num_replicas"])
def test_a_setting_that_a_server_leaves_out_is_not_taken_for_right(missing: str) -> None:
    config = log_config(ONE, EMPTY)
    del config[missing]
    with pytest.raises(StreamRefused, match=f"has {missing} none"):
        check_info(info(config), ONE)


def test_settings_that_are_off_may_be_said_in_several_ways() -> None:
    """Servers leave some out, and say others."""
    off: dict[str, Any] = {
        "mirror": None,
        "sources": [],
        "persist_mode": "default",
        "allow_msg_ttl": False,
        "first_seq": 0,
        "new": 1,
    }
    check_info(info(log_config(ONE, EMPTY) | off), ONE)
    check_info(info(beat_config(ONE) | off), ONE)


@pytest.mark.parametrize("replicas", [1, 2])
def test_fewer_than_three_copies_are_refused_however_they_are_configured(replicas: int) -> None:
    options = NatsOptions(servers=ONE.servers, stream="log", replicas=replicas)
    with pytest.raises(StreamRefused, match=f"quorum.replicas is {replicas}; wanted is 3"):
        check_info(info(log_config(options, EMPTY)), options)


GOOD: dict[str, Any] = {"version": "2.15.1", "jetstream": True, "headers": True, "max_payload": 2**22}


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"version": "2.11.9"}, "version"),
        ({"version": "1.4.1"}, "version"),
        ({"version": ""}, "version"),
        ({"jetstream": False}, "jetstream"),
        ({"headers": False}, "no_header_support"),
        ({"max_payload": 2**22 - 1}, "max_payload"),
    ],
)
def test_each_setting_of_a_server_is_refused_with_its_address(wrong: dict[str, Any], key: str) -> None:
    address = parse_server("nats://me:s3cret@nats-1.example")
    check_server(address, Info(**GOOD))
    check_server(address, Info(**GOOD | {"version": "3.0.0-RC.1"}))
    with pytest.raises(StreamRefused, match=r"nats://nats-1\.example:4222") as refused:
        check_server(address, Info(**GOOD | wrong))
    assert refused.value.key == key
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("origin", [EMPTY, IMPORTED])
def test_what_the_log_follows_is_in_the_metadata(origin: Origin) -> None:
    assert origin_of(info({"metadata": metadata_of(origin) | {"_nats.ver": "2.15.1"}})) == origin


@pytest.mark.parametrize(
    "change",
    [
        {"scoreboard.log_id": "zz"},
        {"scoreboard.log_id": "00"},
        {"scoreboard.seq": "-1"},
        {"scoreboard.epoch": "one"},
        {"scoreboard.epoch": "0"},
        {"scoreboard.checksum": str(2**32)},
        {"scoreboard.checksum": ""},
    ],
)
def test_metadata_that_names_no_log_is_refused(change: dict[str, str]) -> None:
    """And a stream that has none at all."""
    with pytest.raises(StreamRefused, match="which log it holds") as refused:
        origin_of(info({"name": "log", "metadata": metadata_of(EMPTY) | change}))
    assert refused.value.key == "metadata"
    with pytest.raises(StreamRefused):
        origin_of(info({"name": "log"}))
