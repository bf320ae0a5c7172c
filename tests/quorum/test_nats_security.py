"""Keys, tokens, passwords, permissions and TLS of a real server of NATS."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.quorum.nats_client import NatsClient, opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.stream import StreamRefused
from tests.e2e.tls import certificates
from tests.quorum.nkeys import KeyPair, creds_file
from tests.quorum.servers import Cluster

USER, STRANGER = KeyPair("user", bytes([1]) * 32), KeyPair("user", bytes([2]) * 32)
OPERATOR = KeyPair("operator", bytes([3]) * 32)
ACCOUNT, SYSTEM = KeyPair("account", bytes([4]) * 32), KeyPair("account", bytes([5]) * 32)
LIMITED = ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams")
LIMITS = dict.fromkeys(LIMITED, -1) | {"wildcards": True}
"""None."""


@asynccontextmanager
async def server_with(directory: Path, extra: str) -> AsyncIterator[Cluster]:
    async with Cluster(directory, size=1, extra=extra) as cluster:
        await cluster.wait_ready()
        yield cluster


@asynccontextmanager
async def client_of(cluster: Cluster, user: str = "", **more: Any) -> AsyncIterator[NatsClient]:
    urls = [url.replace("nats://", f"nats://{user}") for url in cluster.urls]
    async with opened(NatsOptions(servers=urls, **more), name="node", uniform=random.uniform) as client:
        yield client


async def refused_key(cluster: Cluster, user: str = "", **more: Any) -> str:
    with pytest.raises(StreamRefused) as refused:
        async with client_of(cluster, user, **more):
            pytest.fail("it opened")
    return refused.value.key


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


async def test_a_seed_is_the_key_that_the_server_knows(tmp_path: Path) -> None:
    """It signs what the server sends; another user's is refused."""
    mine, other = written(tmp_path / "mine", USER.seed), written(tmp_path / "other", STRANGER.seed)
    async with server_with(tmp_path, f"authorization {{ users: [ {{ nkey: {USER.public} }} ] }}") as cluster:
        async with client_of(cluster, credentials_file=mine) as client:
            assert b"streams" in (await client.request("$JS.API.INFO")).payload
        assert await refused_key(cluster, credentials_file=other) == "quorum.credentials_file"
        assert await refused_key(cluster) == "quorum.servers"


async def test_a_creds_file_is_a_user_of_an_account(tmp_path: Path) -> None:
    """As an operator gives them out. The token of one user with the key of another is refused."""
    token = ACCOUNT.jwt(USER, "node", {"type": "user", "subs": -1, "data": -1, "payload": -1})
    account = OPERATOR.jwt(ACCOUNT, "account", {"type": "account", "limits": LIMITS})
    system = OPERATOR.jwt(SYSTEM, "SYS", {"type": "account", "limits": LIMITS | {"mem_storage": 0, "disk_storage": 0}})
    extra = f"""
        operator: {OPERATOR.jwt(OPERATOR, "operator", {"type": "operator"})}
        system_account: {SYSTEM.public}
        resolver: MEMORY
        resolver_preload: {{ {ACCOUNT.public}: "{account}", {SYSTEM.public}: "{system}" }}
        """
    mine = written(tmp_path / "mine.creds", creds_file(token, USER.seed))
    other = written(tmp_path / "other.creds", creds_file(token, STRANGER.seed))
    async with server_with(tmp_path, extra) as cluster:
        async with client_of(cluster, credentials_file=mine) as client:
            assert b"streams" in (await client.request("$JS.API.INFO")).payload
        assert await refused_key(cluster, credentials_file=other) == "quorum.credentials_file"


@pytest.mark.parametrize(
    ("extra", "user", "wrong"),
    [
        ('authorization { user: me, password: "p@ss word" }', "me:p%40ss%20word@", "me:pass@"),
        ('authorization { token: "t0 ken" }', "t0%20ken@", "token@"),
    ],
)
async def test_a_password_and_a_token_of_the_url(tmp_path: Path, extra: str, user: str, wrong: str) -> None:
    async with server_with(tmp_path, extra) as cluster:
        async with client_of(cluster, user) as client:
            assert b"streams" in (await client.request("$JS.API.INFO")).payload
        assert await refused_key(cluster, wrong) == "quorum.servers"


async def test_a_missing_permission_is_named(tmp_path: Path) -> None:
    """To publish one subject, and then to hear any answer at all."""
    extra = """authorization { users: [
        { user: a, password: a, permissions: { publish: { deny: "$JS.API.STREAM.>" } } }
        { user: b, password: b, permissions: { subscribe: "other" } }
    ] }"""
    async with server_with(tmp_path, extra) as cluster:
        async with client_of(cluster, "a:a@") as client:
            assert b"streams" in (await client.request("$JS.API.INFO")).payload
            with pytest.raises(StreamRefused, match=r'Publish to "\$JS\.API\.STREAM\.INFO\.log"') as refused:
                await client.request("$JS.API.STREAM.INFO.log", timeout_s=30)
            assert refused.value.key == "permissions"
        async with client_of(cluster, "b:b@") as client:
            with pytest.raises(StreamRefused, match="Subscription to"):
                await client.request("$JS.API.INFO", timeout_s=30)


async def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    """The server demands ours: without it, or without its authority, we are refused by the key that is missing."""
    trusted, _ = certificates(tmp_path)
    ours = str(tmp_path / "node.pem")
    extra = f'tls {{ cert_file: "{ours}", key_file: "{ours}", ca_file: "{trusted}", verify: true }}'
    async with server_with(tmp_path, extra) as cluster:
        async with client_of(cluster, ca_file=str(trusted), certificate_file=ours, key_file=ours) as client:
            assert b"streams" in (await client.request("$JS.API.INFO")).payload
        assert await refused_key(cluster, ca_file=str(trusted)) == "quorum.ca_file"
        assert await refused_key(cluster, certificate_file=ours, key_file=ours) == "quorum.ca_file"
