"""What the scripts say of options that they do not know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from src.system.command_line import Parser

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--ligand_pth", "; did you mean --ligand_path instead of --ligand_pth?"),
        ("--ligand-path=x.sdf", "; did you mean --ligand_path instead of --ligand-path=x.sdf?"),
        ("--zzz", "unrecognized arguments: --zzz\n"),
    ],
)
def test_a_misspelt_option_gets_the_nearest_name(capsys: pytest.CaptureFixture[str], word: str, hint: str) -> None:
    parser = Parser("scores poses")
    parser.add_argument("--ligand_path")
    with pytest.raises(SystemExit) as end:
        parser.parse_args([word])
    assert end.value.code == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("script", ["main.py", "predict.py"])
def test_help_waits_for_no_library(script: str) -> None:
    code = (
        f"import runpy, sys; sys.argv = [{script!r}, '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: assert not {'torch', 'rdkit', 'numpy', 'scipy'} & sys.modules.keys()"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "show this help message" in found.stdout
