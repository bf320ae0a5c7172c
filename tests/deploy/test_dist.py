"""`make dist`, and the wheel on a machine that has no repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import httpx
import pytest
import trio

from server.api.routes import FIXED
from server.live.events import STREAM_PATH
from tests.e2e import leader

ROOT = Path(__file__).parents[2]
VENV = Path(sys.prefix)
PACKAGES = ("engine", "server", "snapshots")
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "Makefile", *PACKAGES)
"""All that the build reads. The rest of the repository is not copied, so a build that needed it would fail."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end; give its output, or raise with it."""
    done = subprocess.run(
        command, cwd=cwd, env=elsewhere(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def elsewhere() -> dict[str, str]:
    """The environment of a machine that knows neither the repository nor any configuration."""
    ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    return {key: value for key, value in leader.environment().items() if key not in ours}


def packed_files() -> set[str]:
    """Every file of the packages that is no document for a reader of the source."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".md", ".pyc")
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make dist` fills, made from a copy."""
    copy = tmp_path_factory.mktemp("source")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    run("make", "-o", VENV / ".installed", f"VENV={VENV}", "dist", cwd=copy)
    return copy / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh venv with the wheel. Its dependencies are those of this venv, whose own `scoreboard` it does not see."""
    fresh = tmp_path_factory.mktemp("machine") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=dist)
    (wheel,) = dist.glob("*.whl")
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", fresh / "bin" / "python", *install, wheel, cwd=dist)
    (site,) = fresh.glob("lib/python*/site-packages")
    # A path that stands in a .pth file is searched last, and the .pth files in it are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return fresh


def test_the_wheel_has_every_file_and_nothing_else(dist: Path) -> None:
    """A page or a table that is forgotten would be missed only when it is asked for."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licenses = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert names == packed_files()
    assert len(licenses) == 1


def test_the_sdist_can_be_built_anew(dist: Path) -> None:
    """`build` makes the wheel from the sdist, so it has what a build needs; it has no tests and no data."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert packed_files() <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not {name for name in names if name.startswith(("tests/", "bench/", "data/"))}


def test_the_command_runs_without_the_repository(installed: Path, tmp_path: Path) -> None:
    """It is the wheel's own code that runs."""
    command = installed / "bin" / "scoreboard"
    verbs = run(command, "--help", cwd=tmp_path)
    assert "serve" in verbs
    where = run(installed / "bin" / "python", "-c", "import server; print(server.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)


async def test_every_page_is_served_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Each address that needs no id is asked: what the wheel lacked would be an error of the server."""
    with (tmp_path / "stderr").open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [installed / "bin" / "scoreboard", "serve", "--bind", "127.0.0.1:0", "--data-dir", tmp_path / "data"],
            cwd=tmp_path,
            env=elsewhere(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    node = leader.Leader(process, tmp_path / "stderr")
    try:
        await node.wait_ready()
        async with httpx.AsyncClient(base_url=node.url, timeout=leader.ALARM_SECONDS, trust_env=False) as client:
            for path in (path for path, methods in FIXED.items() if "GET" in methods and path != STREAM_PATH):
                answer = await client.get(path)
                assert answer.status_code < 500, f"{path}: {answer.text}"
            for path in ("/healthz", "/readyz", "/metrics", "/"):
                assert (await client.get(path)).status_code == 200
        assert await node.terminate() == 0, node.stderr()
    finally:
        with trio.CancelScope(shield=True):
            await node.kill()
    assert os.listdir(tmp_path / "data" / "log")
