"""Variables with our prefix that are no keys: service links are passed over, misspellings are refused."""

from __future__ import annotations

import pytest

from engine.board_rules import rules_of_points
from server.settings.config import TYPES, Config, ConfigError, load
from server.settings.environment import is_service_link, service_links, variable_of

SERVICES = [
    "SCOREBOARD",
    "SCOREBOARD_LEADER",
    "SCOREBOARD_REPLICA",
    "SCOREBOARD_2",
    "SCOREBOARD_AUTH",
    "SCOREBOARD_EU_A_1",
]


def links_of(service: str) -> dict[str, str]:
    """What Kubernetes sets in every pod beside a service with two ports, one of them named."""
    return {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "8080",
        f"{service}_SERVICE_PORT_HTTP": "8080",
        f"{service}_SERVICE_PORT_WEB_METRICS": "9090",
        f"{service}_PORT": "tcp://10.0.0.1:8080",
        **{
            f"{service}_PORT_{port}_{kind}{part}": value
            for port, kind in ((8080, "TCP"), (9090, "UDP"), (9, "SCTP"))
            for part, value in {
                "": f"{kind.lower()}://10.0.0.1:{port}",
                "_PROTO": kind.lower(),
                "_PORT": str(port),
                "_ADDR": "10.0.0.1",
            }.items()
        },
    }


@pytest.mark.parametrize("service", SERVICES)
def test_service_links_are_passed_over(service: str) -> None:
    """A service named `scoreboard`, or `scoreboard-` and anything, puts these into every pod beside it."""
    links = links_of(service)
    assert load(None, links, {}) == Config()
    assert service_links({**links, "SCOREBOARD_BIND": "x", "HOME": "/"}) == sorted(links)


def test_keys_count_beside_service_links() -> None:
    """The links of three services, and two keys of ours."""
    environ = {**links_of("SCOREBOARD"), **links_of("SCOREBOARD_LEADER"), **links_of("SCOREBOARD_LIMITS")}
    environ |= {"SCOREBOARD_LIMITS_USER_PER_MINUTE": "7", "SCOREBOARD_BOARDS_MAIN_POINTS": "WON=3"}
    config = load(None, environ, {})
    assert config.limits.user_per_minute == 7
    assert config.rules.boards == rules_of_points({"main": {"WON": 3}}).boards


def test_no_key_looks_like_a_service_link() -> None:
    """Such a key could be set by an orchestrator against the operator's will."""
    assert not [key for key in TYPES if is_service_link(variable_of(key), "tcp://10.0.0.1:80")]


@pytest.mark.parametrize(
    ("variable", "value", "meant"),
    [
        ("SCOREBOARD_LIMITS_USER_PER_MINUT", "5", "SCOREBOARD_LIMITS_USER_PER_MINUTE"),
        ("SCOREBOARD_BINDS", "127.0.0.1:80", "SCOREBOARD_BIND"),
        ("SCOREBOARD_REPLICATION_LEADER_HOST", "leader", "SCOREBOARD_REPLICATION_LEADER"),
        ("SCOREBOARD_REPLICA_SERVICE_HOSTS", "10.0.0.1", "SCOREBOARD_"),
        ("SCOREBOARD_PORT_TCP", "tcp://10.0.0.1:80", "SCOREBOARD_"),
        ("SCOREBOARD_PORT_80_ICMP", "1", "SCOREBOARD_"),
        ("SCOREBOARD_PORT_80_TCP_NAME", "1", "SCOREBOARD_"),
        ("SCOREBOARD_leader_SERVICE_HOST", "10.0.0.1", "SCOREBOARD_"),
        ("SCOREBOARD_PORT", "8080", "SCOREBOARD_"),
        ("SCOREBOARD_BIND_PORT", "8080", "SCOREBOARD_BIND"),
    ],
)
def test_what_only_looks_like_a_service_link_is_refused(variable: str, value: str, meant: str) -> None:
    """The nearest key is named; a port that a person wrote must not be without effect."""
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: value}, {})
    assert caught.value.key == variable
    assert "no such setting" in caught.value.message
    assert meant in caught.value.message


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("127.0.0.1:80", [("127.0.0.1", 80)]),
        ("[::1]:80", [("::1", 80)]),
        ("127.0.0.1:80,[::1]:80", [("127.0.0.1", 80), ("::1", 80)]),
        ("[::1]:80, localhost:81", [("::1", 80), ("localhost", 81)]),
        ('["[::]:0", "127.0.0.1:0"]', [("::", 0), ("127.0.0.1", 0)]),
        ("[ '127.0.0.1:80' ]", [("127.0.0.1", 80)]),
        ("127.0.0.1:0,127.0.0.1:0", [("127.0.0.1", 0), ("127.0.0.1", 0)]),
    ],
)
def test_bind_is_an_address_or_several(text: str, addresses: list[tuple[str, int]]) -> None:
    """With commas, or as an array; an address in brackets is no array. A flag reads as a variable does."""
    for config in (load(None, {"SCOREBOARD_BIND": text}, {}), load(None, {}, {"bind": text})):
        assert [(each.host, each.port) for each in config.addresses] == addresses


@pytest.mark.parametrize("text", ["", ",", "[]", '["127.0.0.1:80"', "127.0.0.1:80,", "127.0.0.1:80,80"])
def test_a_list_of_addresses_must_be_whole(text: str) -> None:
    """A comma too much at the end is forgiven, as in every list; a part that is no address is not."""
    if text == "127.0.0.1:80,":
        assert len(load(None, {"SCOREBOARD_BIND": text}, {}).addresses) == 1
        return
    with pytest.raises(ConfigError) as caught:
        load(None, {"SCOREBOARD_BIND": text}, {})
    assert caught.value.key == "bind"
