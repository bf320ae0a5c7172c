"""The Helm chart, as Helm rendered it (`render_chart.py`), and with Helm itself where it is."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server import bounds
from server.api.routes import FIXED
from server.cli.main import VERBS
from server.settings.auth import SCOPES
from server.settings.config import load
from tests.deploy.files import PORT, VERSION, compose, last_stage, only, read_yaml
from tests.deploy.render_chart import CHART, RENDERED, VALUES, head, render

CONFIG_PATH = "/etc/scoreboard/scoreboard.toml"
PRE_STOP_SECONDS = 5


def documents(text: str | None = None) -> list[Any]:
    """Every object of the rendered chart."""
    return [each for each in yaml.safe_load_all(RENDERED.read_text() if text is None else text) if each]


def named(kind: str, ending: str = "") -> Any:
    """The one object of a kind whose name ends so."""
    (found,) = [each for each in documents() if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    return found


def pods() -> dict[str, Any]:
    """The templates of the pods, by the kind of node."""
    return {"leader": named("StatefulSet")["spec"]["template"], "replica": named("Deployment")["spec"]["template"]}


def containers() -> Iterator[tuple[str, Any]]:
    """Every container with the kind of its pod; those that run before it too."""
    for kind, pod in pods().items():
        for each in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            yield kind, each


def node(kind: str) -> Any:
    """The container that serves."""
    (found,) = pods()[kind]["spec"]["containers"]
    return found


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a selector takes an object with these labels."""
    return selector.items() <= labels.items()


def test_what_is_tested_is_the_chart() -> None:
    """Whoever changes the chart renders it anew: `python -m tests.deploy.render_chart`."""
    assert RENDERED.read_text().startswith(head())


def test_the_chart_is_of_this_version() -> None:
    """Its version, that of the image, and that of the package are one."""
    chart = read_yaml("helm/scoreboard/Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    assert {each["image"] for _, each in containers()} == {f"scoreboard:{VERSION}"}


def test_there_is_one_leader_and_it_keeps_its_disk() -> None:
    """A second one would be a second board. Replicas fetch what they need, so theirs goes with the pod."""
    leader = named("StatefulSet")["spec"]
    assert leader["replicas"] == 1
    (claim,) = leader["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for kind in pods():
        (mount,) = [each for each in node(kind)["volumeMounts"] if each["name"] == "data"]
        assert mount["mountPath"] == only("VOLUME", last_stage())
    assert claim["metadata"]["name"] == "data"


def test_a_pod_has_no_rights() -> None:
    """The user of the image, a read-only root, no capability, no token of the cluster, no variables of services."""
    user, group = map(int, only("USER", last_stage()).split(":"))
    for pod in pods().values():
        spec = pod["spec"]
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is False
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for _, each in containers():
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in [mount["mountPath"] for mount in each["volumeMounts"]]


@pytest.mark.parametrize("kind", ["leader", "replica"])
def test_a_pod_is_asked_and_stopped_as_the_server_wants_it(kind: str) -> None:
    """Probes ask routes that exist; an hour of recovery is no failure; the drain fits into the grace period."""
    container = node(kind)
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    for probe, path in {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}.items():
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "http"}
        assert "GET" in FIXED[path]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(PRE_STOP_SECONDS)]
    grace = pods()[kind]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= PRE_STOP_SECONDS + 2 * bounds.DRAIN_SECONDS_MAX
    assert container["resources"]["requests"]
    assert "cpu" not in container["resources"]["limits"], "a node that is throttled misses its quarter of a second"


def test_every_node_has_a_configuration_that_is_good(tmp_path: Path) -> None:
    """The file of the values and the variables of the chart are taken together, as a start takes them."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(named("ConfigMap")["data"][Path(CONFIG_PATH).name])
    for _, each in containers():
        environ = {variable["name"]: variable.get("value", "x" * 64) for variable in each["env"]}
        config = load(file, environ, {})
        assert config.replication.public_url == "https://board.example"
        assert config.boards["main"].points == {"WON": 10}
        assert str(Path(CONFIG_PATH).parent) in [mount["mountPath"] for mount in each["volumeMounts"]]
    assert tomllib.loads(read_yaml("helm/scoreboard/values.yaml")["config"]) == {}


def test_a_replica_follows_the_leader_with_a_token_of_its_own() -> None:
    """The words are those of the compose file, whose commands are run in other tests."""
    verb, *arguments = node("replica")["args"]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    service = named("Service", "-leader")
    assert verb in VERBS
    assert options == {
        "--config": CONFIG_PATH,
        "--leader": f"http://{service['metadata']['name']}:{PORT}",
        "--token-file": "/run/scoreboard/replica.token",
    }
    assert node("leader")["args"] == ["serve", "--config", CONFIG_PATH]
    (init,) = pods()["replica"]["spec"]["initContainers"]
    *shell, script = init["command"]
    (of_compose,) = compose()["services"]["token"]["command"]
    plain = re.sub(r"--ttl \w+", "--ttl X", script.replace(f" --config {CONFIG_PATH}", ""))
    assert shell == compose()["services"]["token"]["entrypoint"]
    assert plain == re.sub(r"--ttl \w+", "--ttl X", of_compose)
    assert "log:read" in SCOPES


def test_every_name_leads_to_something() -> None:
    """Selectors take the pods that they mean and no others; volumes, services and files are there."""
    labels = {kind: pod["metadata"]["labels"] for kind, pod in pods().items()}
    for kind, ending in {"leader": "-leader", "replica": "-replicas"}.items():
        service = named("Service", ending)
        assert [name for name, own in labels.items() if matches(service["spec"]["selector"], own)] == [kind]
        assert service["spec"]["ports"] == [{"name": "http", "port": PORT, "targetPort": "http"}]
    for kind, owner in {"leader": named("StatefulSet"), "replica": named("Deployment")}.items():
        selector = owner["spec"]["selector"]["matchLabels"]
        assert [name for name, own in labels.items() if matches(selector, own)] == [kind]
    budget = named("PodDisruptionBudget")["spec"]
    assert [name for name, own in labels.items() if matches(budget["selector"]["matchLabels"], own)] == ["replica"]
    assert named("StatefulSet")["spec"]["serviceName"] == named("Service", "-leader")["metadata"]["name"]
    claimed = {claim["metadata"]["name"] for claim in named("StatefulSet")["spec"]["volumeClaimTemplates"]}
    for pod in pods().values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == named("ConfigMap")["metadata"]["name"]
        mounted = {
            mount["name"]
            for each in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
            for mount in each["volumeMounts"]
        }
        assert mounted - claimed <= set(volumes)
        assert set(volumes) <= mounted


def test_the_monitor_finds_both_services_under_the_job_of_the_rules() -> None:
    """Prometheus gives the job the value of a label; the alert rules ask for that."""
    monitor = named("ServiceMonitor")["spec"]
    for ending in ("-leader", "-replicas"):
        labels = named("Service", ending)["metadata"]["labels"]
        assert matches(monitor["selector"]["matchLabels"], labels)
        (group,) = read_yaml("prometheus/alerts.yml")["groups"]
        assert f'job="{labels[monitor["jobLabel"]]}"' in group["rules"][0]["expr"]
    (endpoint,) = monitor["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert named("ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"


def test_an_unknown_value_is_refused() -> None:
    """Each table of the values has its keys in the schema, and takes no others. What Kubernetes defines is free."""

    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False, path
        assert set(values) == set(schema["properties"]) - {"global"}, path
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, schema["properties"][key], f"{path}.{key}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    compare(read_yaml("helm/scoreboard/values.yaml"), schema, "values")


@pytest.fixture
def helm() -> str:
    """Helm, which no package of Debian has."""
    found = shutil.which("helm")
    if found is None:
        pytest.skip("no helm: the chart is read as it was last rendered, and not rendered anew")
    return found


def test_helm_finds_no_fault(helm: str) -> None:
    """`helm lint`, where a warning is a fault."""
    done = subprocess.run([helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("helm")
def test_helm_renders_what_is_committed() -> None:
    """The same objects; their order and Helm's own lines may be others in another version of Helm."""

    def sorted_by_name(text: str | None) -> list[Any]:
        return sorted(documents(text), key=lambda each: (each["kind"], each["metadata"]["name"]))

    assert sorted_by_name(render("--values", str(VALUES))) == sorted_by_name(None)


@pytest.mark.usefixtures("helm")
def test_helm_makes_a_secret_where_none_is_named(tmp_path: Path) -> None:
    """It is long enough for HS256. Without replicas their objects are not there."""
    values = tmp_path / "values.yaml"
    values.write_text("replicas: {count: 0}\n")
    found = documents(render("--values", str(values)))
    assert sorted(each["kind"] for each in found) == ["ConfigMap", "Secret", "Service", "StatefulSet"]
    (secret,) = [each for each in found if each["kind"] == "Secret"]
    key = base64.b64decode(secret["data"]["jwt-secret"]).decode()
    assert load(None, {"SCOREBOARD_AUTH_JWT_SECRET": key}, {}).auth.jwt_secret
    values.write_text("replicas: {cout: 3}\n")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render("--values", str(values))
    assert "cout" in refused.value.stderr
