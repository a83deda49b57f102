"""Every file has a room, and imports point down: from room to room and, inside a room, never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.rooms import FILES, LEVEL, ROOT

FINER = {  # what a file of the spine does not know, not even over others
    "training": ("chemistry", "pdbbind", "visnet"),
    "model": ("checkpoint", "chemistry", "pdbbind", "system.locks", "system.storage", "system.workers"),
}


def room_of(path: Path) -> str:
    inside = path.relative_to(ROOT).parts
    return Path(inside[1] if inside[0] == "src" else inside[0]).stem


def imported(path: Path, text: str | None = None) -> set[str]:
    """Files and folders that a file imports, as they are called from the root: src.system.storage, config."""
    package = [*path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8") if text is None else text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            below = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name for name in below if _file(name)} or {module}
    return {name for name in found if name.split(".")[0] in ("src", "config", "main", "predict", "tests")}


def imported_rooms(path: Path) -> set[str]:
    return {name.removeprefix("src.").split(".")[0] for name in imported(path)} - {"src"}


def _file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """The names that lie on a circle of arrows or lead to one."""
    left = dict(arrows)
    while free := [name for name, targets in left.items() if not targets & set(left)]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room in ("config", "__init__"):
        assert imported_rooms(path) == set()
        return
    assert room in LEVEL, f"{path.relative_to(ROOT)} stands in no room"
    for other in imported_rooms(path) - {room, "config"}:
        assert LEVEL[other] < LEVEL[room], f"{path.name} imports {other}, which does not lie below {room}"


@pytest.mark.parametrize("room", LEVEL)
def test_no_circle_inside_a_room(room: str) -> None:
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES if room_of(path) == room}
    assert files, f"no file stands in {room}"
    assert circles({name: imported(path) for name, path in files.items()}) == []


@pytest.mark.parametrize("room", FINER)
def test_what_the_spine_does_not_know(room: str) -> None:
    seen, ahead = set(), {f"src.{room}"}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= {other for other in imported(_file(name)) if other.startswith("src.")} - seen
    known = {name.removeprefix("src.") for name in seen}
    assert [name for name in sorted(known) if name.startswith(FINER[room])] == []


def test_only_main_reads_config() -> None:
    assert [path.name for path in FILES if "config" in imported_rooms(path)] == ["main.py"]


def test_a_room_says_what_it_is_for_and_hands_nothing_on() -> None:
    for path in (ROOT / "src").glob("*/__init__.py"):
        (only,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(only.value.value, str), path


def test_what_tests_share_stands_in_no_test_file() -> None:
    """A test file that others import from cannot be split or moved without them."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert [name for name in imported(path) if name.split(".")[-1].startswith("test_")] == [], path


def test_all_forms_of_imports_are_seen() -> None:
    lines = "import src.model", "from src import graph", "from src.system import storage", "from . import cache"
    text = "\n".join([*lines, "from ..settings import SettingsError"])
    names = {"src.model", "src.graph", "src.system.storage", "src.data.cache", "src.settings"}
    assert imported(ROOT / "src" / "data" / "audit.py", text) == names


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"e"}, "e": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("forbidden", ["weights_only=False", "InMemoryDataset", "torch.load("])
def test_files_are_loaded_in_one_place_and_never_as_code(forbidden: str) -> None:
    allowed = {"storage.py"} if forbidden == "torch.load(" else set()
    assert {path.name for path in FILES if forbidden in path.read_text(encoding="utf-8")} == allowed
