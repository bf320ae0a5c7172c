"""The shapes of the feeds beside those of `server.live.clics`: CTFtime's, and what the Contest API tells of itself.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.live.clics import Contest, ContestScoreboard, ContestState, Points, Team, Version

_SPECIFICATION = "https://ccs-specs.icpc.io"

Kind = Literal["contest", "teams", "state", "scoreboard"]

_OFFERED: dict[Kind, type[msgspec.Struct]] = {
    "contest": Contest,
    "teams": Team,
    "state": ContestState,
    "scoreboard": ContestScoreboard,
}


class Standing(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A row of CTFtime's feed. Its field for the name is `team`."""

    pos: Annotated[int, Meta(ge=1)]
    team: str
    score: Points
    last_accept: Annotated[int, Meta(ge=0)]


class Standings(msgspec.Struct, frozen=True):
    """GET /feeds/ctftime.json."""

    standings: list[Standing]


class Provider(msgspec.Struct, frozen=True):
    name: str


class ApiInformation(msgspec.Struct, frozen=True):
    """GET /feeds/clics."""

    version: Version
    version_url: str
    provider: Provider


class Endpoint(msgspec.Struct, frozen=True):
    """A type of objects, and which of their properties are there."""

    type: Kind
    properties: list[str]


class ContestAccess(msgspec.Struct, frozen=True):
    """…/access. There is nothing that a client of this API may change, hence no capabilities."""

    capabilities: list[str]
    endpoints: list[Endpoint]


def information(version: Version) -> ApiInformation:
    """Say which version of the specification is served."""
    return ApiInformation(version, f"{_SPECIFICATION}/{version}/contest_api", Provider("Live scoreboard"))


def access() -> ContestAccess:
    """List what is served of each contest."""
    return ContestAccess([], [Endpoint(kind, list(form.__struct_fields__)) for kind, form in _OFFERED.items()])
