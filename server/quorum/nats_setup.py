"""The settings of the two streams and of their servers: making them, and refusing those that would lose something.

    async with opened(options, name="init", uniform=random.uniform) as client:
        await create(client, options, origin)           # the same again changes nothing

The table below is what must hold, and why. A stream that differs is refused with the setting, its value, what is
wanted, and what mends it.

| setting | wanted | else |
|---|---|---|
| num_replicas | as configured, 3 at least | one machine that dies takes the log along |
| storage | file | all servers restarted at once would forget the log |
| discard | new | a full stream would drop its oldest frames |
| max_msgs, max_bytes, max_age, max_msgs_per_subject | none | frames would vanish without anybody knowing |
| allow_direct | false | a follower would answer reads, and it may be behind |
| deny_delete | true | somebody could punch holes |
| deny_purge | false | the log could never be shortened |
| mirror, sources, subject_transform, first_seq, batches, schedules, counters | none | places would not be ours |
| allow_rollup_hdrs, allow_msg_ttl | false | a message could remove others, or itself |
| persist_mode | default | acknowledged frames would not be on a disk yet |
| max_payload of each server | 4 MiB | a long frame would find no way in |

What cannot be seen from here: `sync_interval` of the servers, which must be `always`. NATS.md says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import structlog
import trio

from engine.record import LOG_ID_BYTES, Tail
from server.quorum import nats_api as api
from server.quorum import nats_limits as limits
from server.quorum.nats_api import AccountInfo, ApiFault, StreamInfo, read_answer
from server.quorum.nats_client import NatsClient
from server.quorum.nats_connection import ConnectionLost, NatsOptions, connect
from server.quorum.nats_protocol import Info
from server.quorum.stream import Origin, StreamRefused, Unanswered
from server.settings.quorum import ServerAddress

log = structlog.get_logger()

REPLICAS_MIN = 3
VERSION_MIN = (2, 12)
"""The tests ran against nats-server 2.12.8, 2.14.6 and 2.15.1. Older ones are no longer mended by their makers."""

_TRIES = 3
_PAUSE_SECONDS = 0.2
"""A server that has just started may not know a stream yet: it is asked so often before that is believed."""

_NANOSECONDS = 1_000_000_000
_DUPLICATE_WINDOW = _NANOSECONDS // 10
"""The shortest that there is. We send no ids."""

_ORIGIN_KEYS = ("scoreboard.log_id", "scoreboard.seq", "scoreboard.epoch", "scoreboard.checksum")

Wanted = tuple[str, Any, str]
"""A setting, its value, and what mends another one. `{stream}` is the stream's name."""

_ANEW = "It cannot be changed later. Remove the stream and make it anew: scoreboard quorum init."
_EDIT = "Set it: nats stream edit {stream} "

_BOTH: tuple[Wanted, ...] = (
    ("sealed", False, "It was exported, or sealed by hand: nothing can be written to it any more."),
    ("retention", "limits", _ANEW),
    ("max_age", 0, _EDIT + "--max-age=0"),
    ("max_bytes", -1, _EDIT + "--max-bytes=-1"),
    ("max_msg_size", -1, _EDIT + "--max-msg-size=-1"),
    ("allow_direct", False, _EDIT + "--no-allow-direct"),
    ("allow_rollup_hdrs", False, _ANEW),
    ("deny_purge", False, _ANEW),
    ("no_ack", False, _EDIT + "--ack"),
    ("mirror", None, _ANEW),
    ("sources", None, _ANEW),
    ("republish", None, _ANEW),
    ("subject_transform", None, _ANEW),
    ("first_seq", None, _ANEW),
    ("persist_mode", None, _ANEW),
    ("allow_atomic", None, _ANEW),
    ("allow_batched", None, _ANEW),
    ("allow_msg_ttl", None, _ANEW),
    ("allow_msg_counter", None, _ANEW),
    ("allow_msg_schedules", None, _ANEW),
)
_LOG: tuple[Wanted, ...] = (
    *_BOTH,
    ("storage", "file", _ANEW),
    ("discard", "new", _EDIT + "--discard=new"),
    ("max_msgs", -1, _EDIT + "--max-msgs=-1"),
    ("max_msgs_per_subject", -1, _EDIT + "--max-msgs-per-subject=-1"),
    ("deny_delete", True, _EDIT + "--deny-delete"),
)
_BEAT: tuple[Wanted, ...] = (
    *_BOTH,
    ("storage", "memory", _ANEW),
    ("discard", "old", _EDIT + "--discard=old"),
    ("max_msgs", 1, _EDIT + "--max-msgs=1"),
)
"""Those of the log and of the beats. None is not sent when a stream is made: older servers do not know the key."""

_OFF: tuple[Any, ...] = (None, False, 0, -1, "", "default", [], {})
"""A setting that is off, or not there at all."""


def log_config(options: NatsOptions, origin: Origin) -> dict[str, Any]:
    """Give the settings of the stream that holds the log."""
    return {
        "name": options.stream,
        "description": "the log of a scoreboard; see server/quorum",
        "subjects": [api.log_subject(options.stream)],
        "num_replicas": options.replicas,
        "duplicate_window": _DUPLICATE_WINDOW,
        "metadata": metadata_of(origin),
        **{key: value for key, value, _ in _LOG if value is not None},
    }


def beat_config(options: NatsOptions) -> dict[str, Any]:
    """Give the settings of the stream that holds the last beat."""
    return {
        "name": api.beat_stream(options.stream),
        "description": f"the last beat of the scoreboard whose log is {options.stream}",
        "subjects": [api.beat_subject(options.stream)],
        "num_replicas": options.replicas,
        "duplicate_window": _DUPLICATE_WINDOW,
        **{key: value for key, value, _ in _BEAT if value is not None},
    }


async def create(client: NatsClient, options: NatsOptions, origin: Origin) -> None:
    """Make both streams. Streams of the same settings may be there already. Raises `StreamRefused`, `Unanswered`."""
    check_replicas(options.replicas)
    await check_servers(client)
    await _ask_account(client)
    for config in (log_config(options, origin), beat_config(options)):
        name = config["name"]
        with suppress(ApiFault):
            there = await _ask_info(client, name, frozenset({api.NO_STREAM}), limits.API_SECONDS)
            check_info(there, options)
            if name == options.stream and origin_of(there) != origin:
                what = f"the stream {name} is there already, and holds another log."
                raise StreamRefused(what, key="quorum.stream", remedy="Name another one, or remove it.")
            continue
        answer = await client.request(f"$JS.API.STREAM.CREATE.{name}", msgspec.json.encode(config))
        try:
            made = read_answer(answer.payload, StreamInfo, stream=name, told=api.NO_PEERS)
        except ApiFault as fault:
            what = f"the servers cannot hold {options.replicas} copies of {name}: {fault}."
            remedy = "Run as many servers of one cluster, each with JetStream."
            raise StreamRefused(what, key="num_replicas", remedy=remedy) from fault
        check_info(made, options)


async def find_info(client: NatsClient, stream: str) -> StreamInfo | None:
    """Ask for all about a stream; None if it is not there. Raises `Unanswered` and `StreamRefused`."""
    try:
        return await _ask_info(client, stream, frozenset({api.NO_STREAM}), limits.API_SECONDS)
    except ApiFault:
        return None


async def seal(client: NatsClient, stream: str) -> StreamInfo:
    """Close a stream for good: nothing can be added to it, or removed from it, by anybody. Give what it holds."""
    info = await ask_info(client, stream)
    if not info.config.get("sealed"):
        subject = f"$JS.API.STREAM.UPDATE.{stream}"
        answer = await client.request(subject, msgspec.json.encode(info.config | {"sealed": True}))
        info = read_answer(answer.payload, StreamInfo, stream=stream)
    return info


async def wait_info(client: NatsClient, options: NatsOptions) -> StreamInfo:
    """Wait until both streams answer, within `OPEN_SECONDS`, and check them. Give all about the log's.

    Raises `Unanswered` and `StreamRefused`.
    """
    deadline = trio.current_time() + limits.OPEN_SECONDS
    while True:
        try:
            await _ask_account(client)
            found = [await ask_info(client, name) for name in (options.stream, api.beat_stream(options.stream))]
            break
        except Unanswered:
            if trio.current_time() > deadline:
                raise
        await trio.sleep(_PAUSE_SECONDS)
    for info in found:
        check_info(info, options)
    return found[0]


async def ask_info(client: NatsClient, stream: str, *, timeout_s: float = limits.API_SECONDS) -> StreamInfo:
    """Ask for all about a stream. Raises `Unanswered` and `StreamRefused`."""
    return await _ask_info(client, stream, frozenset(), timeout_s)


async def _ask_info(client: NatsClient, stream: str, told: frozenset[int], timeout_s: float) -> StreamInfo:
    """Ask for all about a stream. One that is not there is asked for again before that is believed."""
    for left in reversed(range(_TRIES)):
        asked_at = trio.current_time()
        answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout_s=timeout_s)
        try:
            return read_answer(answer.payload, StreamInfo, stream=stream, told=told | {api.NO_STREAM} if left else told)
        except Unanswered:
            client.note_silence(asked_at)
            raise
        except ApiFault:
            if not left:
                raise
        await trio.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last answer is given or raises")


async def check_servers(client: NatsClient) -> None:
    """Check all servers that can be reached. Raises `StreamRefused`."""
    for address in client.addresses:
        try:
            connection = await connect(address, client.options, name=client.name, check=check_server)
        except ConnectionLost as lost:
            log.warning("quorum_server_unreachable", server=str(address), why=str(lost))
            continue
        await connection.aclose()


async def _ask_account(client: NatsClient) -> None:
    """Ask whether we may use JetStream. Raises `StreamRefused` and `Unanswered`."""
    answer = await client.request("$JS.API.INFO")
    read_answer(answer.payload, AccountInfo, stream=client.options.stream)


def check_server(address: ServerAddress, info: Info) -> None:
    """Check what a server says of itself. Raises `StreamRefused`."""
    version = tuple(int(number) for number in re.findall(r"\d+", info.version)[:2])
    if version < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        what = f"{address} is nats-server {info.version}; wanted is {wanted} or newer."
        raise StreamRefused(what, key="version", remedy="Upgrade it.")
    if not info.jetstream:
        remedy = "Write into its nats-server.conf: jetstream { store_dir: /var/lib/nats, sync_interval: always }."
        raise StreamRefused(f"{address} has no JetStream.", key="jetstream", remedy=remedy)
    if not info.headers:
        raise StreamRefused(f"{address} takes no headers.", key="no_header_support", remedy="Set it to false.")
    if info.max_payload < limits.FRAME_WANTED_BYTES:
        megabytes = limits.FRAME_WANTED_BYTES // 2**20
        what = f"{address} has max_payload {info.max_payload}; wanted is {limits.FRAME_WANTED_BYTES} or more."
        remedy = f"Write into its nats-server.conf: max_payload: {megabytes}MB"
        raise StreamRefused(what, key="max_payload", remedy=remedy)


def check_replicas(replicas: int) -> None:
    """Check the number of copies that is configured. Raises `StreamRefused`."""
    if replicas < REPLICAS_MIN:
        what = f"quorum.replicas is {replicas}; wanted is {REPLICAS_MIN} or more."
        raise StreamRefused(what, key="quorum.replicas", remedy="With fewer, one machine that dies ends the writes.")


def check_info(info: StreamInfo, options: NatsOptions) -> None:
    """Check the settings of one of the two streams. Raises `StreamRefused` for the first that is wrong."""
    if info.config.get("name") == options.stream:
        _check_config(info.config, options, _LOG, api.log_subject(options.stream))
    else:
        _check_config(info.config, options, _BEAT, api.beat_subject(options.stream))


def _check_config(config: Mapping[str, Any], options: NatsOptions, wanted: tuple[Wanted, ...], subject: str) -> None:
    check_replicas(options.replicas)
    name = config.get("name")
    rows: tuple[Wanted, ...] = (
        ("num_replicas", options.replicas, _EDIT + f"--replicas={options.replicas}"),
        ("subjects", [subject], _EDIT + f"--subjects={subject}"),
        *wanted,
    )
    for key, value, remedy in rows:
        found = config.get(key)
        if found != value and not (found in _OFF and value in _OFF):
            what = f"the stream {name} has {key} {_shown(found)}; wanted is {_shown(value)}."
            raise StreamRefused(what, key=key, remedy=remedy.format(stream=name))


def _shown(value: Any) -> str:
    return "none" if value is None else msgspec.json.encode(value).decode()


def origin_of(info: StreamInfo) -> Origin:
    """Read what place 1 follows from the stream's metadata. Raises `StreamRefused`."""
    metadata = info.config.get("metadata") or {}
    try:
        log_id, seq, epoch, checksum = (str(metadata[key]) for key in _ORIGIN_KEYS)
        tail = Tail(bytes.fromhex(log_id), int(epoch), int(seq), int(checksum))
        if len(tail.log_id) != LOG_ID_BYTES or not (tail.epoch >= 1 and tail.seq >= 0 and 0 <= tail.checksum < 2**32):
            raise ValueError("out of range")
    except (KeyError, ValueError):
        what = f"the stream {info.config.get('name')} does not say which log it holds (metadata scoreboard.*)."
        raise StreamRefused(what, key="metadata", remedy="Make it with: scoreboard quorum init.") from None
    return Origin(tail)


def metadata_of(origin: Origin) -> dict[str, str]:
    """Give the metadata that says what place 1 follows."""
    tail = origin.tail
    values = (tail.log_id.hex(), str(tail.seq), str(tail.epoch), str(tail.checksum))
    return dict(zip(_ORIGIN_KEYS, values, strict=True))
