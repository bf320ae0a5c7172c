"""The house is kept: imports run downward, pure files are pure, files and functions stay in their room."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.house.floors import (
    CLIENT,
    CLIENT_FLOORS,
    FLOORS,
    FOLDERS,
    FUNCTION_LINES_MAX,
    IMPURE_CALLS,
    IMPURE_MODULES,
    LINES_MAX,
    PURE,
    TEST_LINES_MAX,
    TOP_LEVEL,
)

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "snapshots", "server")
FLOOR_OF = {f"{package}/{name}.py": n for n, (_, package, names) in enumerate(FLOORS) for name in names.split()}
PURE_FILES = [f"{package}/{name}.py" for kind, package, names in FLOORS if kind == PURE for name in names.split()]


CLIENT_FLOOR_OF = {name: n for n, (_, names) in enumerate(CLIENT_FLOORS) for name in names.split()}
PURE_FILES += [f"{CLIENT}/{name}.py" for kind, names in CLIENT_FLOORS if kind == PURE for name in names.split()]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_files(tree: ast.AST) -> set[str]:
    """List the files of our own packages that a module imports, wherever in it the import stands."""
    files = set()
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            file = module.replace(".", "/") + ".py"
            if module.split(".")[0] in PACKAGES and (ROOT / file).is_file():
                files.add(file)
    return files


def folder_of(file: str) -> str:
    """Give the folder of `FOLDERS` that a file is in: `server/api/reads.py` is in `server/api`."""
    package, _, rest = file.removesuffix(".py").partition("/")
    if package != "server":
        return package
    return f"server/{rest.partition('/')[0]}"


def upward_folders(file: str, imported: set[str]) -> set[str]:
    """Give the folders that a file may not import from, of those that hold `imported`."""
    own = folder_of(file)
    others = {folder_of(other) for other in imported} - {own}
    return {other for other in others if FOLDERS.index(other) > FOLDERS.index(own)}


def test_every_file_has_a_floor_and_every_floor_its_files() -> None:
    """A new file must be placed; a file that went must be taken off the list."""
    real = {name_of(path) for path in sources(*PACKAGES) if path.name != "__init__.py"}
    assert real == set(FLOOR_OF)


@pytest.mark.parametrize("file", sorted(FLOOR_OF))
def test_imports_run_downward(file: str) -> None:
    """Each import leads to a lower floor; with that there can be no circles either."""
    upward = {
        other for other in imported_files(ast.parse((ROOT / file).read_text())) if FLOOR_OF[other] >= FLOOR_OF[file]
    }
    assert not upward, f"{file} (floor {FLOOR_OF[file]}) imports from its own floor or above: {sorted(upward)}"


@pytest.mark.parametrize("file", sorted(FLOOR_OF))
def test_folders_import_downward(file: str) -> None:
    """Each import that leaves its folder leads to a lower one; so two folders never import each other."""
    upward = upward_folders(file, imported_files(ast.parse((ROOT / file).read_text())))
    assert not upward, f"{file} imports from folders above its own: {sorted(upward)}"


def test_the_order_of_the_folders_refuses_a_circle() -> None:
    """The canary: the same two folders, imported in both directions; one of the two is refused."""
    assert set(FOLDERS) == {folder_of(file) for file in FLOOR_OF}
    assert upward_folders("server/lanes/listener.py", {"server/api/routes.py", "server/lanes/express.py"}) == set()
    assert upward_folders("server/api/routes.py", {"server/lanes/listener.py"}) == {"server/lanes"}


def test_the_client_has_floors_of_its_own() -> None:
    """Each of its files has one, and imports from lower ones, and from nothing else of ours."""
    real = {path.stem: path for path in sources(CLIENT) if path.name != "__init__.py"}
    assert set(real) == set(CLIENT_FLOOR_OF)
    for name, path in real.items():
        tree = ast.parse(path.read_text())
        assert not imported_files(tree), f"{path} imports from another package"
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scoreboard_client":
                _, _, module = (node.module or "").partition(".")
                for other in [module] if module else [alias.name for alias in node.names]:
                    assert CLIENT_FLOOR_OF[other] < CLIENT_FLOOR_OF[name], f"{name} imports {other}"


@pytest.mark.parametrize("file", PURE_FILES)
def test_pure_files_touch_nothing(file: str) -> None:
    """No clock, no disk, no network, no randomness, no log."""
    tree = ast.parse((ROOT / file).read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{file}:{node.lineno} calls {node.func.id}()"
    assert not roots & IMPURE_MODULES, f"{file} imports {sorted(roots & IMPURE_MODULES)}"


@pytest.mark.parametrize("file", [name_of(path) for path in sources(*PACKAGES, "tests", "bench", "clients")])
def test_files_and_functions_stay_in_their_room(file: str) -> None:
    """Longer ones have more than one purpose: split them. Tests may be longer files, not longer functions."""
    text = (ROOT / file).read_text()
    lines_max = TEST_LINES_MAX if "tests" in file.split("/") else LINES_MAX
    assert text.count("\n") <= lines_max, f"{file} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{file}:{node.lineno} {node.name} has {lines} lines"


def test_the_top_level_holds_what_it_should() -> None:
    """Beside the named folders and files only dotfiles; documents live with the code that they explain."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_every_folder_of_the_house_explains_itself() -> None:
    """Each package, the tests and the benches have a README."""
    for folder in (*PACKAGES, "tests", "bench", "clients/python"):
        assert (ROOT / folder / "README.md").is_file(), f"{folder}/README.md is missing"
