"""A file with lists of PDB codes -> which complexes train, validate and test.

JSON: {"train": [...], "validation": [...], "test": [...]}; a list may also be the name of a text file beside the JSON.
Without "train" every complex that is not listed trains; with it, those are left out. Any other file is a text list of
test codes: the first word of each line, `#` starts a comment. CASF's CoreSet.dat is such a list.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from src.system.errors import UserError
from src.system.terminal import listed

log = logging.getLogger(__name__)

NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}


class SplitFileError(UserError):
    """The lists of codes cannot be used; the message names the file and the codes."""


def read_split_file(path: Path, codes: Sequence[str]) -> dict[str, list[str]]:
    """The listed codes that the data set has, by part; upper and lower case are equal.

    Args:
        codes: of the data set.

    Raises:
        SplitFileError: the file cannot be read, lists a code twice, or a list has no code of the data set.
    """
    lists = _read_lists(path)
    exact = {code.lower(): code for code in codes}
    split: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    part_of: dict[str, str] = {}
    for part, wanted in lists.items():
        doubled = sorted({code for code in wanted if part_of.get(code.lower(), part) != part})
        if doubled:
            raise SplitFileError(f"{path}: in two lists, {part} and another: {listed(doubled)}; a code has one part")
        part_of |= {code.lower(): part for code in wanted}
        split[part] = [exact[code] for code in dict.fromkeys(map(str.lower, wanted)) if code in exact]
        missing = [code for code in wanted if code.lower() not in exact]
        if missing:
            log.warning("%s: not in the data set: %d %s codes: %s", path, len(missing), part, listed(missing))
        if wanted and not split[part]:
            raise SplitFileError(f"{path}: none of the {part} codes is in the data set: {listed(wanted)}")
    unlisted = [code for code in codes if code.lower() not in part_of]
    if "train" not in lists:
        split["train"] = unlisted
    elif unlisted:
        log.warning("%s: %d complexes are in no list and are left out: %s", path, len(unlisted), listed(unlisted))
    return split


def _read_lists(path: Path) -> dict[str, list[str]]:
    text = _read_text(path)
    if path.suffix.lower() != ".json":
        return {"test": _codes(text, path)}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter of thousands of brackets
        raise SplitFileError(f"{path}: is no JSON: {error}") from error
    if not isinstance(content, dict) or not content or not set(content) <= set(NAMES):
        raise SplitFileError(f"{path}: must be an object with lists named of {', '.join(NAMES)}")
    lists: dict[str, list[str]] = {}
    for name, wanted in content.items():
        if isinstance(wanted, str):
            wanted = _codes(_read_text(path.parent / wanted), path.parent / wanted)
        if not isinstance(wanted, list) or not all(isinstance(code, str) for code in wanted):
            raise SplitFileError(f"{path}: {name} must be a list of codes or the name of a text file")
        if NAMES[name] in lists:
            raise SplitFileError(f"{path}: has two lists for {NAMES[name]}")
        lists[NAMES[name]] = wanted
    return lists


def _codes(text: str, path: Path) -> list[str]:
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    codes = [words[0] for words in lines if words]
    if not codes:
        raise SplitFileError(f"{path}: holds no code; expected one in each line")
    return codes


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SplitFileError(f"{path}: cannot be read: {error}") from error
