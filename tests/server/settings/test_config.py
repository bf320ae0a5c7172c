"""The configuration: defaults, the order of sources, and that every mistake stops the start with a sentence of use."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from engine.board_rules import rules_of_points
from engine.limits import SCORE_MAX
from server.settings.config import TYPES, Config, ConfigError, load
from server.settings.environment import variable_of
from server.settings.values import Address, address_for, parse_bind, parse_duration

SECRET = "a-secret-that-is-long-enough-for-hs256"

EVERY_KEY = """
bind = "[::1]:9090"
data_dir = "/var/lib/scoreboard"
trusted_proxies = ["10.0.0.0/8", "::1"]
[auth]
jwks_url = "https://issuer.example/keys"
algorithms = ["RS256", "RS512"]
audience = "game"
issuer = "https://issuer.example/"
user_claim = "https://game.example/uid"
public_reads = false
[boards.main.points]
ACTION_COMPLETED = 10
[boards."week 1"]
points = { WON = 3, LOST = 1 }
[http]
idle_seconds = 90
head_seconds = 1
body_seconds = 3600
send_seconds = 7
[limits]
caller_per_minute = 1
user_per_minute = 1_000
[live]
interval_ms = 100
allowed_origins = ["https://Game.example:443", "http://localhost:3000"]
max_viewers = 0
max_viewers_per_address = 7
[snapshots]
every_events = 5
keep = 3
[log]
keep = "90d"
[users]
require_registered = true
[privacy]
names = "hidden"
[console]
enabled = false
[logging]
format = "json"
level = "debug"
"""

QUORUM_VARIABLES = {
    "SCOREBOARD_QUORUM_SERVERS": "nats://a.example:4222, tls://b.example",
    "SCOREBOARD_QUORUM_CREDENTIALS_FILE": "node.creds",
    "SCOREBOARD_QUORUM_CA_FILE": "ca.pem",
    "SCOREBOARD_QUORUM_CERTIFICATE_FILE": "node.pem",
    "SCOREBOARD_QUORUM_KEY_FILE": "node.key",
    "SCOREBOARD_QUORUM_STREAM": "game",
    "SCOREBOARD_QUORUM_REPLICAS": "5",
    "SCOREBOARD_QUORUM_SILENCE_SECONDS": "10",
    "SCOREBOARD_QUORUM_PUBLISH_TIMEOUT_SECONDS": "2",
    "SCOREBOARD_QUORUM_STREAM_KEEP_BYTES": "16_777_216",
}


def read(
    tmp_path: Path, text: str, environ: dict[str, str] | None = None, flags: dict[str, str] | None = None
) -> Config:
    """Load a configuration file with this text."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(text)
    return load(file, environ or {}, flags or {})


def refusal(tmp_path: Path, text: str = "", environ: dict[str, str] | None = None) -> ConfigError:
    """Load what must be refused, and give the error."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, environ)
    return caught.value


def test_without_anything_the_defaults_hold() -> None:
    """No file, no environment, no flags: a server that runs on this machine alone."""
    config = load(None, {}, {})
    assert config == Config()
    assert config.addresses == (Address("127.0.0.1", 8080),)
    assert config.data_dir == "data"
    assert config.proxy_networks == ()
    assert config.auth.algorithms == (), "those of the keys"
    assert (config.auth.audience, config.auth.issuer, config.auth.user_claim) == ("scoreboard", "", "uid")
    assert config.auth.public_reads
    assert config.auth.can_mint
    assert config.rules.boards == rules_of_points({"main": {"ACTION_COMPLETED": 10}}).boards
    assert not config.rules.require_registered
    http = config.http
    assert (http.idle_seconds, http.head_seconds, http.body_seconds, http.send_seconds) == (75, 10, 30, 20)
    assert (config.limits.caller_per_minute, config.limits.user_per_minute) == (60_000, 600)
    assert (config.live.interval_ms, config.live.max_viewers, config.live.max_viewers_per_address) == (250, 19_000, 500)
    assert config.live.origins is None
    assert (config.snapshots.every_events, config.snapshots.keep) == (1_000_000, 2)
    assert config.log.keep_seconds is None
    assert config.privacy.names == "shown"
    assert config.console.enabled is True
    assert (config.logging.format, config.logging.level) == ("auto", "info")


def test_every_key_can_be_set_in_the_file(tmp_path: Path) -> None:
    """The file of all keys is accepted and every one of them counts."""
    config = read(tmp_path, EVERY_KEY)
    assert config.addresses == (Address("::1", 9090),)
    assert config.proxy_networks == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert config.auth.algorithms == ("RS256", "RS512")
    assert not config.auth.can_mint
    assert config.auth.user_claim == "https://game.example/uid"
    assert not config.auth.public_reads
    points = {"main": {"ACTION_COMPLETED": 10}, "week 1": {"WON": 3, "LOST": 1}}
    assert config.rules.boards == rules_of_points(points).boards
    assert config.rules.require_registered
    http = config.http
    assert (http.idle_seconds, http.head_seconds, http.body_seconds, http.send_seconds) == (90, 1, 3600, 7)
    assert (config.limits.caller_per_minute, config.limits.user_per_minute) == (1, 1000)
    assert config.live.origins is not None
    assert config.live.origins.exact == {"https://game.example", "http://localhost:3000"}
    assert config.live.max_viewers == 0
    assert config.log.keep_seconds == 90 * 86_400
    assert (config.snapshots.every_events, config.snapshots.keep) == (5, 3)
    assert config.privacy.names == "hidden"
    assert config.console.enabled is False
    assert (config.logging.format, config.logging.level) == ("json", "debug")


def test_every_key_can_be_set_in_the_environment(tmp_path: Path) -> None:
    """One variable for each key, and each of them counts: nothing is as in the default afterwards."""
    environ = {
        "SCOREBOARD_BIND": "0.0.0.0:0",
        "SCOREBOARD_DATA_DIR": "elsewhere",
        "SCOREBOARD_TRUSTED_PROXIES": "10.0.0.1, 10.1.0.0/16",
        "SCOREBOARD_AUTH_JWT_SECRET": SECRET,
        "SCOREBOARD_AUTH_CLIENT_IDS": "app-1, app-2",
        "SCOREBOARD_AUTH_SCOPE_CLAIMS": "realm_access.roles",
        "SCOREBOARD_AUTH_SCOPE_MAP": "https://api.example/a?b=c=scores:write, reader=scores:read",
        "SCOREBOARD_AUTH_ISSUERS": '[{"issuer": "them", "jwks_url": "https://a.example/", "algorithms": ["RS256"]}]',
        "SCOREBOARD_AUTH_ALGORITHMS": '["HS256"]',
        "SCOREBOARD_AUTH_AUDIENCE": "game",
        "SCOREBOARD_AUTH_ISSUER": "us",
        "SCOREBOARD_AUTH_USER_CLAIM": "user",
        "SCOREBOARD_AUTH_PUBLIC_READS": "False",
        "SCOREBOARD_BOARDS_MAIN_POINTS": "ACTION_COMPLETED=11, OTHER = 5",
        "SCOREBOARD_HTTP_IDLE_SECONDS": "620",
        "SCOREBOARD_HTTP_HEAD_SECONDS": "15",
        "SCOREBOARD_HTTP_BODY_SECONDS": "45",
        "SCOREBOARD_HTTP_SEND_SECONDS": "3600",
        "SCOREBOARD_LIMITS_CALLER_PER_MINUTE": "5",
        "SCOREBOARD_LIMITS_USER_PER_MINUTE": "1_000",
        "SCOREBOARD_LIVE_INTERVAL_MS": "100",
        "SCOREBOARD_LIVE_ALLOWED_ORIGINS": '["https://a.example", "https://b.example"]',
        "SCOREBOARD_LIVE_MAX_VIEWERS": "10",
        "SCOREBOARD_LIVE_MAX_VIEWERS_PER_ADDRESS": "2",
        "SCOREBOARD_SNAPSHOTS_EVERY_EVENTS": "9",
        "SCOREBOARD_SNAPSHOTS_KEEP": "4",
        "SCOREBOARD_LOG_KEEP": "12h",
        "SCOREBOARD_USERS_REQUIRE_REGISTERED": "true",
        "SCOREBOARD_PRIVACY_NAMES": "initials",
        "SCOREBOARD_PRIVACY_ERASE_WITHIN_HOURS": "0",
        "SCOREBOARD_CONSOLE_ENABLED": "false",
        "SCOREBOARD_FEEDS_CLICS_VERSION": "2026-01",
        "SCOREBOARD_ACTIONS_INDEX": "disk",
        "SCOREBOARD_ACTIONS_MEMORY_BYTES": "2000000",
        "SCOREBOARD_REPLICATION_LEADER": "http://leader.example:8080",
        "SCOREBOARD_REPLICATION_TOKEN_FILE": "token",
        "SCOREBOARD_REPLICATION_PUBLIC_URL": "https://scores.example",
        "SCOREBOARD_REPLICATION_NODE_NAME": "east",
        "SCOREBOARD_REPLICATION_HEARTBEAT_SECONDS": "2",
        "SCOREBOARD_REPLICATION_READY_AGE_SECONDS": "60",
        "SCOREBOARD_REPLICATION_BEHIND_WAIT_SECONDS": "0",
        "SCOREBOARD_LOGGING_FORMAT": "console",
        "SCOREBOARD_LOGGING_LEVEL": "error",
        "SCOREBOARD_WEBHOOKS": '[{"name": "a", "url": "https://a.example/", "events": ["user.erased"]}]',
        "SCOREBOARD_WEBHOOKS_A_SECRET": f"whsec_{'QUFB' * 8}",
        "UNRELATED": "ignored",
        **QUORUM_VARIABLES,
    }
    config = load(None, environ, {})
    assert config.addresses == (Address("0.0.0.0", 0),)
    assert config.proxy_networks == (ip_network("10.0.0.1"), ip_network("10.1.0.0/16"))
    assert config.auth.jwt_secret == (SECRET,)
    assert config.rules.boards == rules_of_points({"main": {"ACTION_COMPLETED": 11, "OTHER": 5}}).boards
    assert config.live.origins is not None
    assert config.live.origins.exact == {"https://a.example", "https://b.example"}
    assert config.log.keep_seconds == 12 * 3600
    assert config.users.require_registered
    default = Config()
    for key in TYPES:
        if key not in [("auth", name) for name in ("jwt_secret_file", "jwt_public_key_file", "jwks_url")]:
            value, before = config, default
            for part in key:
                value, before = getattr(value, part), getattr(before, part)
            assert value != before, key


def test_no_two_keys_share_a_variable() -> None:
    """Joining by _ is ambiguous in general (a.b_c, a_b.c); among our keys it is not."""
    assert len({variable_of(key) for key in TYPES}) == len(TYPES)


def test_flags_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """Each source counts where no stronger one speaks, key by key."""
    environ = {"SCOREBOARD_BIND": "127.0.0.1:2", "SCOREBOARD_LIMITS_USER_PER_MINUTE": "2"}
    config = read(
        tmp_path,
        'bind = "127.0.0.1:1"\ndata_dir = "file"\n[limits]\nuser_per_minute = 1\ncaller_per_minute = 1',
        environ,
        {"bind": "127.0.0.1:3"},
    )
    assert config.bind == "127.0.0.1:3"
    assert config.limits.user_per_minute == 2
    assert config.limits.caller_per_minute == 1
    assert config.data_dir == "file"
    assert config.snapshots.keep == 2


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[limits]\nuser_per_minut = 5", "limits.user_per_minut", "did you mean user_per_minute?"),
        ("[limit]\nuser_per_minute = 5", "limit", "did you mean limits?"),
        ("port = 8080", "port", "known are actions, auth, bind, boards"),
        ("[boards.main]\npoints = {A = 1}\ncolour = 1", "boards.main.colour", "known are feeds"),
        ("[boards.main]\npoint = {A = 1}", "boards.main.points", "is missing"),
        ("limits = 5", "limits", "must be a table"),
        ("[boards]\nmain = 5", "boards.main", "must be a table"),
        ("[limits]\nuser_per_minute = 0", "limits.user_per_minute", "must be an integer from 1 to 1000000000; 0 is"),
        ("[limits]\nuser_per_minute = '5'", "limits.user_per_minute", 'an integer from 1 to 1000000000; "5" is not'),
        ("[limits]\nuser_per_minute = 5.0", "limits.user_per_minute", "an integer"),
        ("[limits]\nuser_per_minute = true", "limits.user_per_minute", "an integer"),
        ("[users]\nrequire_registered = 1", "users.require_registered", "must be true or false; 1 is not allowed"),
        ("bind = 8080", "bind", "must be a string HOST:PORT or a list of them"),
        ("bind = []", "bind", "or a list of them; [] is not allowed"),
        ("bind = ['127.0.0.1:80', '8080']", "bind", "must be HOST:PORT"),
        ("bind = ['127.0.0.1:80', '127.0.0.1:80']", "bind", "each address once"),
        ("bind = '8080'", "bind", "HOST:PORT"),
        ("bind = '::1:8080'", "bind", "[::1]:8080"),
        ("data_dir = ''", "data_dir", "must be a string that is not empty"),
        ("trusted_proxies = ['10.0.0.1/8']", "trusted_proxies", "no bits set behind its prefix"),
        ("trusted_proxies = ['proxy.example']", "trusted_proxies", "must be an address or a network"),
        ("[live]\nallowed_origins = ['https://a.example/']", "live.allowed_origins", "without a path (no / at"),
        ("[live]\nallowed_origins = ['*', 'https://a.example']", "live.allowed_origins", "stands alone"),
        ("[live]\nallowed_origins = ['a.example']", "live.allowed_origins", "SCHEME://HOST"),
        ("[http]\nidle_seconds = 0", "http.idle_seconds", "an integer from 1 to 3600; 0 is not allowed"),
        ("[http]\nsend_seconds = 3601", "http.send_seconds", "an integer from 1 to 3600"),
        ("[http]\nidle_second = 75", "http.idle_second", "did you mean idle_seconds?"),
        ("[live]\ninterval_ms = 5", "live.interval_ms", "from 10 to 60000"),
        ("[snapshots]\nkeep = 1", "snapshots.keep", "an integer from 2 to 1000"),
        ("[log]\nkeep = '90'", "log.keep", 'must be "forever" or a whole number and s, m, h or d'),
        ("[log]\nkeep = '0d'", "log.keep", '"0d" is not allowed'),
        ("[logging]\nformat = 'xml'", "logging.format", "must be auto, json or console"),
        ("[boards.main]\npoints = {}", "boards.main.points", "at least one reason"),
        ("[boards.main.points]\nWON = 0", "boards.main.points.WON", "or a range; 0 is not allowed"),
        (f"[boards.main.points]\nWON = {SCORE_MAX + 1}", "boards.main.points.WON", f"from 1 to {SCORE_MAX}"),
        ("[boards.main.points]\nWON = '5'", "boards.main.points.WON", "must be an integer, or a range"),
        ("[boards.main]\npoints = 5", "boards.main.points", "a table of reasons and what they are worth"),
        ('[boards.main.points]\n"" = 5', 'boards.main.points.""', "must not be empty"),
        ('[boards."a\\u0007"]\npoints = {A = 1}', 'boards."a\\u0007".points', "must not have control characters"),
        ("[auth]\naudience = ''", "auth.audience", "a string that is not empty"),
        ("[auth]\nuser_claim = 'exp'", "auth.user_claim", "has a meaning of its own"),
    ],
)
def test_a_bad_file_is_refused_with_the_key_and_what_is_allowed(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    """Unknown keys, wrong types and values out of range: the key in full, what is allowed, and the file."""
    error = refusal(tmp_path, text)
    assert error.key == key
    assert words in error.message
    assert str(tmp_path / "scoreboard.toml") in error.message
    assert str(error) == f"{key}: {error.message}"


@pytest.mark.parametrize("text", ["bind = ", "bind = 'a'\nbind = 'b'", "a" * 5000 + " =", "x = " + "[" * 5000])
def test_a_file_that_is_not_toml_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    """A syntax error names the file."""
    error = refusal(tmp_path, text)
    assert error.key.endswith("scoreboard.toml")
    assert "is not TOML" in error.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A configuration that was named must be readable; the defaults are no substitute."""
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load(tmp_path / "absent.toml", {}, {})


@pytest.mark.parametrize(
    ("variable", "value", "key", "words"),
    [
        ("SCOREBOARD_LIMITS_USER_PER_MINUT", "5", "", "did you mean SCOREBOARD_LIMITS_USER_PER_MINUTE?"),
        ("SCOREBOARD_JWT_SECRET", SECRET, "", "did you mean SCOREBOARD_AUTH_JWT_SECRET?"),
        ("SCOREBOARD_BOARDS_MAIN_POINT", "A=1", "", "did you mean SCOREBOARD_BOARDS_MAIN_POINTS?"),
        ("SCOREBOARD_BOARDS__POINTS", "A=1", "", "no such setting"),
        ("SCOREBOARD_LIMITS_USER_PER_MINUTE", "", "limits.user_per_minute", "must be an integer"),
        ("SCOREBOARD_LIMITS_USER_PER_MINUTE", "ten", "limits.user_per_minute", "must be an integer"),
        ("SCOREBOARD_LIMITS_USER_PER_MINUTE", "9" * 5000, "limits.user_per_minute", "must be an integer"),
        ("SCOREBOARD_LIMITS_USER_PER_MINUTE", "-5", "limits.user_per_minute", "an integer from 1 to"),
        ("SCOREBOARD_AUTH_PUBLIC_READS", "yes", "auth.public_reads", "must be true or false"),
        ("SCOREBOARD_TRUSTED_PROXIES", "[1]", "trusted_proxies", "a list of strings"),
        ("SCOREBOARD_TRUSTED_PROXIES", "['10.0.0.1'", "trusted_proxies", "values with commas between them"),
        ("SCOREBOARD_TRUSTED_PROXIES", "['10.0.0.1']\nbind = 'x'", "trusted_proxies", "values with commas"),
        ("SCOREBOARD_BOARDS_MAIN_POINTS", "A=1,A=2", "boards.main.points", "REASON=10,OTHER=5"),
        ("SCOREBOARD_BOARDS_MAIN_POINTS", "A", "boards.main.points", "REASON=10,OTHER=5"),
        ("SCOREBOARD_BOARDS_MAIN_POINTS", "{A = }", "boards.main.points", "REASON=10,OTHER=5"),
        ("SCOREBOARD_BOARDS_MAIN_POINTS", "", "boards.main.points", "at least one reason"),
        ("SCOREBOARD_BOARDS_MAIN_POINTS", "A=0", "boards.main.points.A", "an integer from 1"),
        ("SCOREBOARD_REPLICATION_LEADER", "leader.example", "replication.leader", "must be http:// or https://"),
        ("SCOREBOARD_REPLICATION_PUBLIC_URL", "http://a/?x=1", "replication.public_url", "without a user, a query"),
        ("SCOREBOARD_REPLICATION_HEARTBEAT_SECONDS", "0", "replication.heartbeat_seconds", "from 1 to 60"),
        ("SCOREBOARD_LOGGING_LEVEL", "INFO", "logging.level", "debug, info, warning or error"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(variable: str, value: str, key: str, words: str) -> None:
    """A misspelt variable or a bad value in one: never passed over, always named."""
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: value}, {})
    assert caught.value.key == (key or variable)
    assert variable in str(caught.value)
    assert words in caught.value.message


def test_a_bad_flag_is_refused_by_its_name() -> None:
    """What was typed is named as it was typed."""
    with pytest.raises(ConfigError, match=r'bind: must be HOST:PORT.*; "nowhere" is not allowed \(from --bind\)'):
        load(None, {}, {"bind": "nowhere"})


@pytest.mark.parametrize(
    "text",
    ["ACTION_COMPLETED=10,OTHER=5", "{ ACTION_COMPLETED = 10, OTHER = 5 }", '{"ACTION_COMPLETED": 10, "OTHER": 5}'],
)
def test_points_can_be_written_in_three_ways(text: str) -> None:
    """Plain, as TOML, as JSON."""
    config = load(None, {"SCOREBOARD_BOARDS_MAIN_POINTS": text}, {})
    assert config.rules.boards == rules_of_points({"main": {"ACTION_COMPLETED": 10, "OTHER": 5}}).boards


def test_a_board_variable_means_the_board_of_the_file_that_looks_like_it(tmp_path: Path) -> None:
    """Upper case hides how a name is written; the file tells, and otherwise it is lower case."""
    file = "[boards.Week-1.points]\nA = 1\n[boards.other.points]\nA = 1"
    environ = {"SCOREBOARD_BOARDS_WEEK_1_POINTS": "A=2", "SCOREBOARD_BOARDS_NEW_ONE_POINTS": "A=3"}
    config = read(tmp_path, file, environ)
    assert config.rules.boards == rules_of_points({"Week-1": {"A": 2}, "other": {"A": 1}, "new_one": {"A": 3}}).boards


def test_a_board_variable_that_could_mean_two_boards_is_refused(tmp_path: Path) -> None:
    """Guessing would give points to the wrong board."""
    file = "[boards.week-1.points]\nA = 1\n[boards.week_1.points]\nA = 1"
    error = refusal(tmp_path, file, {"SCOREBOARD_BOARDS_WEEK_1_POINTS": "A=2"})
    assert "could mean any of the boards week-1, week_1" in error.message


def test_the_default_board_is_there_only_while_nobody_names_one(tmp_path: Path) -> None:
    """Who lists boards has listed all of them."""
    assert set(read(tmp_path, "[boards.weekly.points]\nA = 1").boards) == {"weekly"}
    assert set(load(None, {"SCOREBOARD_BOARDS_WEEKLY_POINTS": "A=1"}, {}).boards) == {"weekly"}
    assert set(read(tmp_path, "[boards]").boards) == {"main"}


AUTH_REFUSALS = [
    (f"jwt_secret = '{SECRET}'\njwks_url = 'https://a.example/'", "auth.jwks_url", "only one source of keys"),
    ("jwt_public_key_file = 'a.pem'\njwks_url = 'https://a.example/'", "auth.jwks_url", "only one source of keys"),
    ("jwks_url = 'https://a.example/'", "auth.algorithms", "fit auth.jwks_url; [] is not allowed (by"),
    ("jwt_public_key_file = 'a.pem'\nalgorithms = ['HS256']", "auth.algorithms", "fit auth.jwt_public_key_file"),
    (f"jwt_secret = '{SECRET}'\nalgorithms = ['RS256']", "auth.algorithms", "HS256, HS384, HS512"),
    ("algorithms = ['ES256']", "auth.algorithms", "these fit the signing key in the data directory"),
    ("algorithms = ['none']", "auth.algorithms", "must be one or more of"),
    ("algorithms = ['hs256']", "auth.algorithms", "must be one or more of"),
    ("algorithms = []", "auth.algorithms", "must be one or more of"),
    ("algorithms = ['HS256', 'HS256']", "auth.algorithms", "each once"),
    ("jwks_url = 'https://a.example/'\nalgorithms = ['RS256', 'none']", "auth.algorithms", "must be one or more of"),
    ("jwks_url = 'https://a.example/'\nalgorithms = ['RS256', 'HS256']", "auth.algorithms", "must be one or more of"),
    ("algorithms = ['HS256', 'EdDSA']", "auth.algorithms", "not both"),
    ("jwks_url = 'http://a.example/'\nalgorithms = ['RS256']", "auth.jwks_url", "must be an https:// URL"),
    ("jwks_url = 'https://me:pw@a.example/'\nalgorithms = ['RS256']", "auth.jwks_url", "without a user"),
    ("jwks_url = 'file:///etc/keys'\nalgorithms = ['RS256']", "auth.jwks_url", "must be an https:// URL"),
    ("jwks_url = 'https://a.example:99999/'\nalgorithms = ['RS256']", "auth.jwks_url", "must be an https:// URL"),
    ("jwks_url = 'https://a.example/ b'\nalgorithms = ['RS256']", "auth.jwks_url", "must be an https:// URL"),
]


@pytest.mark.parametrize(("text", "key", "words"), AUTH_REFUSALS)
def test_keys_algorithms_and_sources_must_fit_together(tmp_path: Path, text: str, key: str, words: str) -> None:
    """One source, one family that fits it, never none: no token can then choose how it is verified."""
    error = refusal(tmp_path, f"[auth]\n{text}")
    assert error.key == key
    assert words in error.message


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_keys_may_come_without_tls_from_this_machine_alone(tmp_path: Path, host: str) -> None:
    """Plain HTTP is for a sidecar or a test: nobody is in between."""
    config = read(tmp_path, f"[auth]\njwks_url = 'http://{host}:8000/keys'\nalgorithms = ['EdDSA']")
    assert config.auth.jwks_url == f"http://{host}:8000/keys"


@pytest.mark.parametrize(("algorithm", "bytes_min"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_short_secret_is_refused_and_not_shown(tmp_path: Path, algorithm: str, bytes_min: int) -> None:
    """A secret is as long as its hash, and is in no message, whatever else is wrong."""
    secret = "s3cret-" * 20
    text = f"[auth]\nalgorithms = ['{algorithm}']\njwt_secret = '{{}}'"
    error = refusal(tmp_path, text.format(secret[: bytes_min - 1]))
    assert error.key == "auth.jwt_secret"
    assert f"at least {bytes_min} bytes" in error.message
    assert "s3cret" not in str(error)
    assert read(tmp_path, text.format(secret[:bytes_min])).auth.jwt_secret == (secret[:bytes_min],)


def test_a_secret_is_in_no_message_and_no_representation(tmp_path: Path) -> None:
    """Neither of a configuration that is printed, nor of errors about the secret or its misspelt key."""
    assert SECRET not in repr(read(tmp_path, f"[auth]\njwt_secret = '{SECRET}'"))
    assert SECRET not in str(refusal(tmp_path, f"[auth]\njwt_secret = [['{SECRET}']]"))
    assert SECRET not in str(refusal(tmp_path, f"[auth]\njwt_secert = '{SECRET}'"))
    assert SECRET not in str(refusal(tmp_path, "", {"SCOREBOARD_AUTH_JWT_SECERT": SECRET}))
    assert SECRET not in str(refusal(tmp_path, f"[auth]\njwt_secret = '{SECRET}"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::]:0", Address("::", 0)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
        ("localhost:65535", Address("localhost", 65_535)),
        ("board-1.example.com:80", Address("board-1.example.com", 80)),
    ],
)
def test_a_place_to_listen_is_read(text: str, address: Address) -> None:
    """Names, IPv4, IPv6 in brackets, and port 0."""
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", ":8080", "8080", "localhost", "localhost:", "localhost:65536", "localhost:-1", "localhost: 80",
        "::1:80", "[::1]", "[::1]80", "[::1:80", "[127.0.0.1]:80", "300.1.1.1:80", "1.2.3:80", "a b:80", "-a:80",
        "a..b:80", "http://localhost:80", "localhost:80/", "a" * 64 + ":80", "localhost:80\n", "localhost:٨٠",
    ],
)  # fmt: skip
def test_what_is_no_place_to_listen_is_refused(text: str) -> None:
    """Each of these could be meant in several ways, or in none."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_bind(text)


def test_durations_are_read() -> None:
    """A whole number and a unit."""
    assert [parse_duration(text) for text in ("90s", "30m", "1h", "7d")] == [90, 1800, 3600, 604_800]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """Some editors write one. It was a fault "at line 1, column 1", where nothing can be seen."""
    path = tmp_path / "scoreboard.toml"
    path.write_bytes(b"\xef\xbb\xbfdata_dir = 'elsewhere'\r\n")
    assert load(path, {}, {}).data_dir == "elsewhere"


@pytest.mark.parametrize("text", ["", "1", "h", "0s", "01h", "1.5h", "1 h", "-1h", "1w", "1h30m", "1H", "١h", "1h\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """No guessing of units, no zero."""
    with pytest.raises(ValueError, match="a whole number and s, m, h or d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("url", "other_host", "usable"),
    [
        ("http://192.0.2.7:8080", "old.example", True),
        ("http://[2001:db8::1]:8080", "127.0.0.1", True),
        ("http://new.example:8080", "192.0.2.8", True),
        ("http://127.0.0.1:8080", "127.0.0.1", True),
        ("http://127.0.0.1:8080", "localhost", True),
        ("http://localhost:8080", "::1", True),
        ("http://127.0.0.1:8080", "old.example", False),
        ("http://[::1]:8080", "192.0.2.8", False),
        ("http://0.0.0.0:8080", "127.0.0.1", False),
        ("http://[::]:8080", "192.0.2.8", False),
        ("", "127.0.0.1", False),
    ],
)
def test_the_address_that_another_node_can_use(url: str, other_host: str, usable: bool) -> None:
    """No wildcard, and nothing of this machine for another one."""
    assert address_for(url, other_host) == (url if usable else None)
