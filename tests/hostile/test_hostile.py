"""Every attack of the table against a real server.

`make test` runs each once, with shorter deadlines in the server. `make hostile` (HOSTILE_LONG=1) has the real ones, and
runs the whole table HOSTILE_ROUNDS times against the same server, so leftovers of the attacks add up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.leader import token
from tests.hostile.attack import Attack
from tests.hostile.harness import Range, attack, beginning
from tests.hostile.issuer import Issuer
from tests.hostile.table import ATTACKS
from tests.hostile.target import serving
from tests.hostile.tokens import claims
from tests.measuring import raise_file_limit

ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "1"))


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    """A server that verifies tokens with a shared secret."""
    raise_file_limit()
    with serving(tmp_path_factory.mktemp("secret")) as target, beginning(target, token("admin")) as place:
        yield place


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    """A server that verifies tokens with the public keys of an issuer."""
    issuer = Issuer()
    issuer.start()
    extra = {"SCOREBOARD_AUTH_JWKS_URL": f"{issuer.url}/keys", "SCOREBOARD_AUTH_ALGORITHMS": "RS256"}
    try:
        with serving(tmp_path_factory.mktemp("issuer"), extra) as target:
            target.issuer = issuer
            with beginning(target, issuer.sign(claims())) as place:
                yield place
    finally:
        issuer.stop()


@pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_it_is_survived_and_the_honest_are_served(kind: Attack, number: int, request: pytest.FixtureRequest) -> None:
    """The server answers, memory and files are back within bounds, and the honest client was served all the time."""
    place: Range = request.getfixturevalue(kind.server)
    print(attack(place, kind))  # noqa: T201  # the figures, for `pytest -rP`
