"""Lists of codes in JSON and text files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.similarity.split_files import SplitFileError, read_split_file

CODES = ["1abc", "2abc", "3abc", "4abc", "5abc", "Mine"]


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_text_list_is_the_test_set_and_the_rest_trains(tmp_path: Path) -> None:
    # Lines as in CASF's CoreSet.dat.
    text = "#code  resl  year  logKa  Ka  target\n2ABC  1.80  2010  4.19  Ki=64uM  1\nmine  2.0 2011 5 Kd=1uM 2\n"
    split = read_split_file(write(tmp_path, "CoreSet.dat", text), CODES)
    assert split == {"train": ["1abc", "3abc", "4abc", "5abc"], "validation": [], "test": ["2abc", "Mine"]}


def test_json_lists_and_names_of_text_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "train.txt", "1abc\n2abc\n9zzz\n")
    path = write(tmp_path, "split.json", {"train": "train.txt", "valid": ["3abc"], "test": ["4abc", "4abc"]})
    split = read_split_file(path, CODES)
    assert split == {"train": ["1abc", "2abc"], "validation": ["3abc"], "test": ["4abc"]}
    assert "not in the data set: 1 train codes: 9zzz" in caplog.text
    assert "2 complexes are in no list and are left out: 5abc, Mine" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["1abc"], "test": ["2abc", "1ABC"]}, r"in two lists, test and another: 1ABC; a code has one part"),
        ({"test": [f"{n}zzz" for n in range(18)]}, r"none of the test codes .*: 0zzz, .*15zzz and 2 more"),
        ({"tset": ["1abc"]}, "must be an object with lists named of train"),
        ({}, "must be an object"),
        (["1abc"], "must be an object"),
        ({"test": [1]}, "test must be a list of codes or the name"),
        ({"val": ["1abc"], "valid": ["2abc"]}, "has two lists for validation"),
        ({"test": "nowhere.txt"}, r"nowhere\.txt: cannot be read"),
        ("{", "is no JSON"),
    ],
)
def test_faults_name_the_file_and_the_codes(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path, "split.json", content)
    with pytest.raises(SplitFileError, match=message) as caught:
        read_split_file(path, CODES)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "# nothing\n\n"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(SplitFileError, match=r"codes\.txt: holds no code"):
        read_split_file(write(tmp_path, "codes.txt", content), CODES)
