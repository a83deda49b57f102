"""What README.md and the pages in docs/ say about commands, settings, columns and files is what the program does."""

from __future__ import annotations

import ast
import re
import shlex
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import predict
from config import CONFIG, CPU, GPU_6GB, GPU_16GB
from src.checkpoint import SCHEMA
from src.data_processing import DATA_PROCESSING_VERSION
from src.pdbbind.user_table import header_fault
from src.run import training_options
from src.run.run_record import FREE_KEYS
from src.scoring.prediction import COLUMNS
from src.settings import GraphSettings
from tests.rooms import FILES, LEVEL

ROOT = Path(__file__).resolve().parents[1]
NUM_LINES = 180  # three screens
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
README = PAGES["README.md"]
ALL = "\n".join(PAGES.values())
LINKED = [
    *PAGES,
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "processed_data/README.md",
    "checkpoints/pretrained/README.md",
    "checkpoints/cleansplit/README.md",
    "benchmarks/RESULTS.md",
    "benchmarks/SCALING.md",
    "benchmarks/ablations.md",
]
HARDWARE = "Model and batch: the hardware blocks"


def section(page: str, title: str) -> str:
    """The text below a heading of a page, up to the next heading of any level."""
    return re.split(rf"^##+ {re.escape(title)}$", PAGES[page], maxsplit=1, flags=re.M)[1].split("\n#")[0]


def table(text: str) -> list[list[str]]:
    """The cells of the table rows in a text, the two lines of each header left out."""
    rows = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.M):
        rows += [[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()[2:]]
    return rows


def code_words(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def setting_rows() -> dict[str, dict[str, str]]:
    """key -> heading of its table, default (a list of three for a hardware block) and resume."""
    rows = {}
    for title in re.findall(r"^## (.+)$", PAGES["docs/settings.md"], flags=re.M):
        for key, *cells in table(section("docs/settings.md", title)):
            assert key.strip("`") not in rows, f"{key} stands in two tables"
            rows[key.strip("`")] = {"title": title, "default": cells[:-3], "resume": cells[-2]}
    return rows


SETTINGS = setting_rows()
COMMANDS = sorted(set(re.findall(r"python (main|predict)\.py([^`|\n]*)", ALL)))


def test_the_two_commands_stand_alone_on_a_line() -> None:
    lines = README.splitlines()
    assert lines.count("pip install -r requirements.txt && python main.py") == 1
    assert lines.count("pip install -r requirements.txt && python -m pytest") == 1


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= NUM_LINES
    contents = section("README.md", "Contents")
    assert set(re.findall(r"\]\((docs/[^)#]+)\)", contents)) == set(PAGES) - {"README.md"}
    assert set(re.findall(r"\]\(#([^)]+)\)", contents)) == set(anchors(README)) - {"contents", anchors(README)[0]}


def test_every_page_leads_back() -> None:
    second = {name: text.split("\n\n")[1:2] for name, text in PAGES.items() if name != "README.md"}
    assert [name for name, line in second.items() if line != ["[All pages](../README.md#contents)"]] == []


def anchors(text: str) -> list[str]:
    """Names under which GitHub links to the headings of a page."""
    found, count = [], Counter()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(f"{name}-{count[name]}" if count[name] else name)
        count[name] += 1
    return found


def links() -> Iterator[tuple[str, str]]:
    for page in LINKED:
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code((ROOT / page).read_text(encoding="utf-8"))):
            if not re.match(r"https?:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_links_lead_somewhere(page: str, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = (ROOT / page).parent / name if name else ROOT / page
    assert path.resolve().is_relative_to(ROOT)
    assert path.exists()
    if anchor:
        assert anchor in anchors(path.read_text(encoding="utf-8"))


def test_anchors_are_those_of_github() -> None:
    text = "# Does it hold on *my* machine?\n## A `--set`\n```\n# no heading\n```\n## A `--set`\n"
    assert anchors(text) == ["does-it-hold-on-my-machine", "a---set", "a---set-1"]


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
    parse = {"main": of_training, "predict": predict._options}[script]
    if script == "main":
        for key, _ in parse(shlex.split(options)).set:
            assert key in CONFIG
    elif options:
        parse(shlex.split(options))


def of_training(words: Sequence[str]) -> Namespace:
    return training_options.read_options(words, "")


def options_of(parse: Callable, capsys: pytest.CaptureFixture) -> set[str]:
    with pytest.raises(SystemExit):
        parse(["--help"])
    return set(re.findall(r"--[a-z][a-z_-]+", capsys.readouterr().out)) - {"--help"}


def test_options_described_are_all_there_are(capsys: pytest.CaptureFixture) -> None:
    of_predict, of_main = options_of(predict._options, capsys), options_of(of_training, capsys)
    assert set(re.findall(r"`(--[a-z_]+)", section("docs/scoring.md", "Options"))) == of_predict
    # argparse would take an abbreviation for the option, so commands that parse are not enough.
    own = re.sub(
        r"^```bash.*?^```|torchrun --\S+", "", without_links(ALL), flags=re.M | re.S
    )  # not SLURM's and torchrun's
    assert set(re.findall(r"--[a-z][a-z_-]+", own)) == of_predict | of_main


def without_links(text: str) -> str:
    return re.sub(r"\]\([^)]*\)", "", text)


def test_output_columns() -> None:
    rows = [row for row in table(section("docs/scoring.md", "What comes out")) if len(row) == 2]
    assert [word for row in rows for word in code_words(row[0])] == list(COLUMNS)


def column_aliases() -> list[tuple[str, str]]:
    rows = table(section("docs/training_data.md", "A table of your own"))
    return [(code_words(name)[0], alias) for name, others, _ in rows for alias in code_words(others)]


@pytest.mark.parametrize(("name", "alias"), column_aliases())
def test_other_names_of_a_column_mean_the_same(tmp_path: Path, name: str, alias: str) -> None:
    path = tmp_path / "table.csv"
    known = dict.fromkeys(["code", "pK", name])
    path.write_text(",".join(known))
    assert not header_fault(path)
    path.write_text(",".join([*known, alias]))  # a second column of the same meaning is refused, an unknown one ignored
    assert header_fault(path)


def test_every_key_of_a_checkpoint_is_named() -> None:
    rows = table(section("docs/checkpoints.md", "What is inside"))
    assert {word for row in rows for word in code_words(row[0])} == set(SCHEMA)


def test_layout_table_has_every_room() -> None:
    """And in an order in which arrows point down."""
    rows = table(section("README.md", "Project layout"))
    shown = [Path(name).stem for cell, _ in rows for name in code_words(cell)]
    assert sorted(shown) == sorted([*LEVEL, "config"])
    assert [LEVEL[name] for name in shown if name in LEVEL] == sorted(LEVEL.values())


def test_files_named_in_the_layout_exist() -> None:
    named = code_words(section("README.md", "Project layout"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_files_of_the_program_that_pages_name_exist() -> None:
    named = {word for word in code_words(ALL) if re.match(r"(src|benchmarks|tests)/[\w/.]+$", word)}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_scores_of_the_readme_are_those_of_the_page_and_of_the_model_card() -> None:
    text = section("README.md", "How far to trust the scores")
    figures = re.findall(r"\d\.\d\d(?: \[\d\.\d\d, \d\.\d\d\])?", text)
    assert len(figures) == 13
    for other in (PAGES["docs/trust.md"], (ROOT / "checkpoints/cleansplit/README.md").read_text(encoding="utf-8")):
        assert [figure for figure in figures if figure not in other] == []


def test_tests_that_hold_a_case_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGES["docs/debugging.md"])
    cases = re.findall(r"^\*\*(.+?)\*\*", PAGES["docs/debugging.md"], flags=re.M)
    assert len(named) >= 2 * cases.count("Held by") == 2 * cases.count("It happened here.") == 16
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def letters(text: str) -> int:
    return len(re.findall(r"[^\W\d_]", text))


def sentences() -> Iterator[str]:
    """The texts of the program, a line each, with %s where a value stands."""
    for path in FILES:
        inside: set[ast.AST] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                inside |= set(node.values)
                parts = [part.value if isinstance(part, ast.Constant) else "%s" for part in node.values]
                yield from "".join(parts).split("\n")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
                yield from node.value.split("\n")


def test_what_is_said_to_be_printed_can_be() -> None:
    """A text of the program fits into each line, and has a quarter of its letters; the rest are values."""
    fixed = [re.split(r"%[-+0-9.,]*[a-z]", sentence.strip()) for sentence in set(sentences())]
    patterns = [(letters("".join(parts)), re.compile(".*".join(map(re.escape, parts)))) for parts in fixed]
    blocks = re.findall(r"^```text\n(.+?)^```", ALL, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 30
    for line in lines:
        assert any(4 * count >= letters(line) and pattern.search(line) for count, pattern in patterns), line


def test_changelog_names_the_data_processing_version() -> None:
    assert f"Data processing version {DATA_PROCESSING_VERSION}." in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
