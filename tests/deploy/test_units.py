"""The systemd units and what they install beside them."""

from __future__ import annotations

import configparser
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from server import bounds
from server.cli.support import BadUsage
from server.settings.config import load
from tests.deadlines import deadline
from tests.deploy.conftest import running
from tests.deploy.files import DATA_DIR, DEPLOY
from tests.e2e.leader import ALARM_SECONDS

UNITS = DEPLOY / "systemd"
NAMES = ("scoreboard", "scoreboard-replica")
COMMAND = "/opt/scoreboard/bin/scoreboard"
EXPOSURE_MAX = "20"
"""Tenths of what `systemd-analyze security` calls the exposure level: 0 is best, 100 is worst."""
OWN_LINES = ("# A", "Description=", "Conflicts=", "ExecStart=")


def text_of(name: str) -> str:
    """A unit as it is installed."""
    return (UNITS / f"{name}.service").read_text()


def service_of(name: str) -> configparser.SectionProxy:
    """The keys of [Service]. systemd allows a key twice; the last one is given."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # keys of systemd are in mixed case
    parser.read_string(text_of(name))
    return parser["Service"]


def test_the_two_units_differ_only_in_what_they_run() -> None:
    """Hardening that is added to one of them is added to both."""

    def common(name: str) -> list[str]:
        return [line for line in text_of(name).splitlines() if not line.startswith(OWN_LINES)]

    assert common("scoreboard") == common("scoreboard-replica")
    verbs = [service_of(name)["ExecStart"].removeprefix(COMMAND).split()[0] for name in NAMES]
    assert verbs == ["serve", "replica"]


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_fits_the_server(name: str) -> None:
    """It waits for READY=1 and for the whole drain, and does not start again what only a person can mend."""
    service = service_of(name)
    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(service["TimeoutStopSec"]) >= 2 * bounds.DRAIN_SECONDS_MAX
    assert int(service["TimeoutStartSec"]) > bounds.MANAGER_PROGRESS_SECONDS
    assert int(service["WatchdogSec"]) >= 10, "a beat comes at half of it; a short stall is no reason to restart"
    assert service["RestartPreventExitStatus"] == str(BadUsage.exit_code)
    assert Path("/var/lib", service["StateDirectory"]) == Path(DATA_DIR).parent
    assert f"/etc/{service['ConfigurationDirectory']}/scoreboard.toml" in service["ExecStart"]


def test_the_configuration_beside_the_units_is_good(tmp_path: Path) -> None:
    """As it stands, and with every line that is commented out."""
    sample = (UNITS / "scoreboard.toml").read_text()
    config = load(UNITS / "scoreboard.toml", {}, {})
    assert config.data_dir == DATA_DIR
    whole = tmp_path / "whole.toml"
    whole.write_text(re.sub(r"^# (\w+ = )", r"\1", sample, flags=re.MULTILINE))
    replication = load(whole, {}, {}).replication
    assert replication.leader
    assert replication.token_file.startswith("/var/lib/scoreboard/")
    assert replication.public_url


def test_the_user_of_the_units_is_made() -> None:
    """`systemd-sysusers` makes the user that both units name."""
    (line,) = [each for each in (UNITS / "scoreboard.sysusers").read_text().splitlines() if not each.startswith("#")]
    assert line.split()[:2] == ["u", service_of("scoreboard")["User"]]


def test_a_unit_played_without_systemd(tmp_path: Path) -> None:
    """Its command with its configuration tells READY=1 and beats; a reload is read; after SIGTERM comes STOPPING=1."""
    config = tmp_path / "scoreboard.toml"
    sample = (UNITS / "scoreboard.toml").read_text().replace(DATA_DIR, str(tmp_path / "data"))
    config.write_text(sample.replace("127.0.0.1:8080", "127.0.0.1:0"))
    service = service_of("scoreboard")
    installed = f"/etc/{service['ConfigurationDirectory']}/scoreboard.toml"
    words = service["ExecStart"].removeprefix(COMMAND).split()
    arguments = [str(config) if word == installed else word for word in words]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(ALARM_SECONDS)

        def wait_for(line: str) -> None:
            while line not in manager.recv(65_536).decode().splitlines():
                pass

        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        with running(arguments, tmp_path, environment) as process:
            wait_for("READY=1")
            wait_for("WATCHDOG=1")
            config.write_text(f"{config.read_text()}\n[limits]\nuser_per_minute = 7\n")
            subprocess.run(["sh", "-c", service["ExecReload"]], env={"MAINPID": str(process.pid)}, check=True)
            with deadline(round(ALARM_SECONDS)):
                while "config_reloaded" not in (tmp_path / "stderr").read_text():
                    time.sleep(0.05)
        wait_for("STOPPING=1")


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units with a command that exists on this machine."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: the units are read, and not verified by systemd")
    for name in NAMES:
        (tmp_path / f"{name}.service").write_text(text_of(name).replace(COMMAND, "/bin/true"))
    return [str(tmp_path / f"{name}.service") for name in NAMES]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `systemd-analyze`."""
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_understands_every_line(installed: list[str]) -> None:
    """It says nothing. An unknown key or value would be told, and passed over at a start."""
    verified = analyze("verify", "--man=no", *installed)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_systemd_calls_the_units_well_protected(installed: list[str]) -> None:
    """Its own score of what a node could do to the machine."""
    for unit in installed:
        scored = analyze("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)
        assert scored.returncode == 0, scored.stdout + scored.stderr
