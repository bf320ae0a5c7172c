"""A node whose issuer has given no keys yet: it serves public reads, and `/readyz` says what it can't do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from tests.server.access.issuer import RSA_KEYS, Issuer, http, jwk, token
from tests.server.node.test_start import config_of, serve_and_use, stop


@pytest.mark.parametrize("name", ["https://login.example/", ""])
async def test_readyz_warns_until_the_issuer_gave_its_keys(tmp_path: Path, name: str) -> None:
    """It was plain `ready` while each token got 503. The warning names whose tokens, and where the keys should be."""
    issuer = Issuer()
    issuer.answer = lambda: http(b"", "503 Service Unavailable")

    async def use(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            ready = await client.get("/readyz")
            assert ready.status_code == 200
            [warning] = ready.json()["warnings"]
            assert f"tokens of {name or 'the issuer'} cannot be verified" in warning
            assert "127.0.0.1" in warning
            assert "secret" not in warning
            issuer.keys = [jwk(RSA_KEYS[0], "a")]
            issuer.answer = issuer.key_set
            # An unknown key is fetched at once; this token has expired, which no longer matters then.
            header = {"authorization": f"Bearer {token(RSA_KEYS[0], 'a')}"}
            assert (await client.get("/actions/a", headers=header)).status_code == 401
            assert "warnings" not in (await client.get("/readyz")).json()
        await stop(url)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, issuer.serve, 0, host="127.0.0.1"))
        config = config_of(
            tmp_path / "data",
            SCOREBOARD_AUTH_JWT_SECRET="",
            SCOREBOARD_AUTH_JWKS_URL=f"http://127.0.0.1:{listener.socket.getsockname()[1]}/keys?key=secret",
            SCOREBOARD_AUTH_ALGORITHMS="RS256",
            SCOREBOARD_AUTH_ISSUER=name,
        )
        assert await serve_and_use(config, use) == 0
        nursery.cancel_scope.cancel()
