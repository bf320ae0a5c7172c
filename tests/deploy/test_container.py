"""The image and the compose file. No container runs here: they are read, and what they start is started without one."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
import tomllib
from pathlib import PurePosixPath
from typing import Any

import httpx
import pytest

from server import bounds
from server.settings.config import load
from tests.deploy.conftest import Pair, free_port
from tests.deploy.files import (
    DATA_DIR,
    DEPLOY,
    PORT,
    ROOT,
    VERSION,
    compose,
    dockerfile,
    exec_form,
    image_environment,
    last_stage,
    only,
    read_yaml,
    seconds,
)

NODES = ("leader", "replica-1", "replica-2")
STOP_SECONDS_MIN = 2 * bounds.DRAIN_SECONDS_MAX
"""The drain, and as long again for a snapshot."""
PINNED = r"[a-z0-9/]+:v?\d+\.\d+\.\d+(-[a-z0-9-]+)?"


def service(name: str) -> dict[str, Any]:
    """One service of the compose file."""
    found: dict[str, Any] = compose()["services"][name]
    return found


def test_the_image_runs_as_nobody_special_and_gets_its_signals() -> None:
    """A numeric user, so that Kubernetes can see that it is not root; the exec form, so that SIGTERM reaches it."""
    user, group = only("USER", last_stage()).split(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    assert exec_form(only("ENTRYPOINT", last_stage())) == ["scoreboard"]
    assert exec_form(only("CMD", last_stage())) == ["serve"]
    assert exec_form(only("HEALTHCHECK", last_stage()).partition(" CMD ")[2])[0] == "python"
    assert only("STOPSIGNAL", last_stage()) == "SIGTERM"
    names = [name for name, _ in last_stage()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert not [rest for name, rest in last_stage() if name == "RUN" and ("apt-get" in rest or "pip" in rest)]


def test_the_image_listens_and_stores_where_it_says() -> None:
    """Port, volume and data directory agree; the environment is a configuration that the server takes."""
    environment = image_environment()
    config = load(None, {key: text for key, text in environment.items() if key.startswith("SCOREBOARD_")}, {})
    (address,) = config.addresses
    assert (address.host, address.port, config.data_dir) == ("0.0.0.0", PORT, DATA_DIR)
    assert only("EXPOSE", last_stage()) == str(PORT)
    assert only("VOLUME", last_stage()) == str(PurePosixPath(DATA_DIR).parent)
    assert str(PurePosixPath(DATA_DIR).parent) in only("RUN", last_stage())


def test_what_the_build_needs_is_sent_to_it_and_nothing_else() -> None:
    """`.dockerignore` lets in what COPY names. A data directory, a key or a token can't come into an image."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    assert patterns[0] == "*"
    let_in = {line[1:] for line in patterns if line.startswith("!")}
    copies = [rest.split() for name, rest in dockerfile() if name == "COPY"]
    copied = {word for words in copies if not words[0].startswith("--from") for word in words[:-1]}
    assert copied == let_in
    assert not [name for name in copied if not (ROOT / name).exists()]
    for secret in ("data/signing.key", "replica.token", ".venv/x", ".git/config"):
        assert not any(fnmatch.fnmatch(secret, pattern) or secret.startswith(f"{pattern}/") for pattern in let_in)


def test_images_and_build_tools_are_pinned() -> None:
    """A build of next year is a build of today, as far as the tags go."""
    python = only("ARG", dockerfile()).removeprefix("PYTHON=")
    assert re.fullmatch(PINNED, python), python
    assert {rest.split()[0] for name, rest in dockerfile() if name == "FROM"} == {"${PYTHON}"}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    (tools,) = [rest for name, rest in dockerfile() if name == "RUN" and rest.startswith("pip install")]
    for tool in re.findall('"([^"]+)"', tools):
        assert tool in needed, f"the image builds with {tool}, `make dist` does not"
    for name, each in compose()["services"].items():
        assert re.fullmatch(PINNED, each["image"]), f"{name}: {each['image']}"
    assert f"scoreboard:{VERSION}" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("name", compose()["services"])
def test_every_container_is_hardened(name: str) -> None:
    """Its root is read-only, it has no capability and can get none, and what it writes is a volume or in memory."""
    each = service(name)
    assert each["read_only"] is True
    assert each["cap_drop"] == ["ALL"]
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert each["pids_limit"] > 0
    declared = compose()["volumes"]
    for volume in each["volumes"]:
        source, _, rest = volume.partition(":")
        assert (DEPLOY / source).exists() if source.startswith(".") else source in declared, volume
        assert rest.endswith(":ro") or not source.startswith("."), f"{volume}: it could write into the repository"
    for port in each.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "a port is open to this machine alone unless it is asked for"


@pytest.mark.parametrize("name", NODES)
def test_every_node_has_a_volume_a_port_and_time_to_stop(name: str) -> None:
    """All nodes run one image, each on its own volume."""
    each = service(name)
    assert each["image"] == f"scoreboard:{VERSION}"
    assert (DEPLOY / each["build"]["context"]).resolve() == ROOT
    assert (ROOT / each["build"]["dockerfile"]).is_file()
    assert f"{name}-data:{only('VOLUME', last_stage())}" in each["volumes"]
    assert [port.rpartition(":")[2] for port in each["ports"]] == [str(PORT)]
    assert seconds(each["stop_grace_period"]) >= STOP_SECONDS_MIN
    load(None, each["environment"], {})


def test_prometheus_asks_every_node_and_grafana_asks_prometheus() -> None:
    """The names that the containers use for each other are those of the services."""
    prometheus = read_yaml("prometheus/prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    (targets,) = [each["targets"] for each in job["static_configs"]]
    assert targets == [f"{name}:{PORT}" for name in NODES]
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    (port,) = service("prometheus")["ports"]
    assert source["url"] == f"http://prometheus:{port.rpartition(':')[2]}"
    (provider,) = read_yaml("grafana/provisioning/dashboards/scoreboard.yaml")["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in service("grafana")["volumes"]


def healthcheck(bind: str) -> subprocess.CompletedProcess[str]:
    """Run the image's healthcheck, here."""
    _, *arguments = exec_form(only("HEALTHCHECK", last_stage()).partition(" CMD ")[2])
    copied = [rest.split() for name, rest in last_stage() if name == "COPY"]
    (source,) = [words[-2] for words in copied if words[-1] == arguments[-1]]
    return subprocess.run(
        [sys.executable, *arguments[:-1], str(ROOT / source)],
        env={**os.environ, "SCOREBOARD_BIND": bind, "http_proxy": "http://127.0.0.1:1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_healthcheck_tells_a_node_that_lives_from_one_that_does_not(pair: Pair) -> None:
    """Started as the compose file starts them, leader and replica are alive, and no port without a node is."""
    for url in (pair.leader, pair.replica):
        port = url.rpartition(":")[2]
        assert healthcheck(f"0.0.0.0:{port}").returncode == 0
        assert healthcheck(f"10.0.0.1:1,[::]:{port}").returncode == 0
        assert healthcheck(f'["127.0.0.1:{port}", "127.0.0.1:{free_port()}"]').returncode == 0
        assert healthcheck(f"127.0.0.1:{port},127.0.0.1:{free_port()}").returncode == 0
        assert healthcheck(f"127.0.0.2:{port}").returncode == 1, "nobody listens there"
    dead = healthcheck(f"0.0.0.0:{free_port()}")
    assert dead.returncode == 1
    assert "does not answer" in dead.stderr


def test_a_replica_of_the_compose_file_keeps_what_it_has_and_sends_writes_to_the_leader(pair: Pair) -> None:
    """It is durable, so it can be promoted; the leader's public address comes from the compose file."""
    ready = httpx.get(f"{pair.replica}/readyz", trust_env=False).json()
    assert ready["status"] == "ready"
    body, headers = {"userId": "a", "actionId": "b"}, {"Authorization": f"Bearer {pair.token}"}
    moved = httpx.post(f"{pair.replica}/scores/increment", json=body, headers=headers, trust_env=False)
    assert moved.status_code == 307
    assert moved.headers["location"] == "http://127.0.0.1:8080/scores/increment"
