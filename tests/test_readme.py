"""What README.md says about commands, settings, columns and files is what the program does."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import main
import predict
from config import CONFIG, CPU, GPU_6GB, GPU_16GB
from src.checkpoint import SCHEMA
from src.data_processing import DATA_PROCESSING_VERSION
from src.pdbbind.user_table import has_labels
from src.run.run_record import FREE_KEYS
from src.scoring.prediction import COLUMNS
from src.settings import GraphSettings
from tests.rooms import LEVEL

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HARDWARE = "Model and batch: the hardware blocks"


def section(title: str) -> str:
    """The text below a heading, up to the next heading of any level."""
    return re.split(rf"^##+ {re.escape(title)}$", README, maxsplit=1, flags=re.M)[1].split("\n#")[0]


def table(text: str) -> list[list[str]]:
    """The cells of the table rows in a text, the two lines of its header left out."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def code_words(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def setting_rows() -> dict[str, dict[str, str]]:
    """key -> heading of its table, default (a list of three for a hardware block) and resume."""
    settings = README.split("\n## Settings\n")[1].split("\n## ")[0]
    rows = {}
    for title in re.findall(r"^### (.+)$", settings, flags=re.M):
        for key, *cells in table(section(title)):
            assert key.strip("`") not in rows, f"{key} stands in two tables"
            rows[key.strip("`")] = {"title": title, "default": cells[:-3], "resume": cells[-2]}
    return rows


SETTINGS = setting_rows()
COMMANDS = sorted(set(re.findall(r"python (main|predict)\.py([^`|\n]*)", README)))


def test_the_two_commands_stand_alone_on_a_line() -> None:
    lines = README.splitlines()
    assert lines.count("pip install -r requirements.txt && python main.py") == 1
    assert lines.count("pip install -r requirements.txt && python -m pytest") == 1


def test_every_setting_has_one_row_and_no_row_is_left_over() -> None:
    assert set(SETTINGS) == set(CONFIG)


@pytest.mark.parametrize("key", CONFIG)
def test_the_default_shown_is_that_of_config(key: str) -> None:
    shown = [ast.literal_eval(cell.strip("`")) for cell in SETTINGS[key]["default"][:3]]
    if SETTINGS[key]["title"] == HARDWARE:
        assert shown == [CPU[key], GPU_6GB[key], GPU_16GB[key]]
    assert shown[0] == CONFIG[key]


def test_hardware_blocks_have_the_keys_of_their_table() -> None:
    shown = {key for key, row in SETTINGS.items() if row["title"] == HARDWARE}
    assert shown == set(CPU) == set(GPU_6GB) == set(GPU_16GB)


def test_the_keys_said_to_be_free_on_resume_are() -> None:
    assert {row["resume"] for row in SETTINGS.values()} == {"free", "fixed"}
    assert {key for key, row in SETTINGS.items() if row["resume"] == "free"} == FREE_KEYS


def test_the_keys_said_to_build_a_new_cache_are_the_graph_settings() -> None:
    shown = {key for key, row in SETTINGS.items() if row["title"] == "Graphs"}
    assert shown == {field.metadata["key"] for field in GraphSettings.__dataclass_fields__.values()}


@pytest.mark.parametrize(("script", "options"), COMMANDS)
def test_commands_have_options_that_exist(script: str, options: str) -> None:
    parse = {"main": main._options, "predict": predict._options}[script]
    if script == "main":
        for key, _ in parse(shlex.split(options)).set:
            assert key in CONFIG
    elif options:
        parse(shlex.split(options))


def options_of(parse: Callable, capsys: pytest.CaptureFixture) -> set[str]:
    with pytest.raises(SystemExit):
        parse(["--help"])
    return set(re.findall(r"--[a-z][a-z_-]+", capsys.readouterr().out)) - {"--help"}


def test_options_described_are_all_there_are(capsys: pytest.CaptureFixture) -> None:
    scoring = section("Scoring poses")
    assert set(re.findall(r"`(--[a-z_]+)", scoring)) == options_of(predict._options, capsys)
    # argparse would take an abbreviation for the option, so commands that parse are not enough.
    elsewhere = set(re.findall(r"--[a-z][a-z_-]+", README.replace(scoring, "")))
    assert elsewhere - options_of(predict._options, capsys) == options_of(main._options, capsys)


def test_output_columns() -> None:
    rows = table(section("Scoring poses"))
    assert [word for row in rows for word in code_words(row[0])] == list(COLUMNS)


def column_aliases() -> list[tuple[str, str]]:
    rows = table(section("A table of your own"))
    return [(code_words(name)[0], alias) for name, others, _ in rows for alias in code_words(others)]


@pytest.mark.parametrize(("name", "alias"), column_aliases())
def test_other_names_of_a_column_mean_the_same(tmp_path: Path, name: str, alias: str) -> None:
    path = tmp_path / "table.csv"
    known = dict.fromkeys(["code", "pK", name])
    path.write_text(",".join(known))
    assert has_labels(path)
    path.write_text(",".join([*known, alias]))  # a second column of the same meaning is refused, an unknown one ignored
    assert not has_labels(path)


def test_every_key_of_a_checkpoint_is_named() -> None:
    assert set(code_words(section("Checkpoints"))) >= set(SCHEMA)


def test_layout_table_has_every_room() -> None:
    """And in an order in which arrows point down."""
    shown = [Path(name).stem for cell, _ in table(section("Project layout")) for name in code_words(cell)]
    assert sorted(shown) == sorted([*LEVEL, "config"])
    assert [LEVEL[name] for name in shown if name in LEVEL] == sorted(LEVEL.values())


def test_files_named_in_the_layout_exist() -> None:
    named = code_words(section("Project layout"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_changelog_names_the_data_processing_version() -> None:
    assert f"Data processing version {DATA_PROCESSING_VERSION}." in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
