"""manifest.json of a cache folder: which graph lies in which shard, and from which structure files it was made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any

from src.system.storage import write_text

log = logging.getLogger(__name__)

# Data sets may hold other files under the same PDB code. The graphs of so many share a folder; older ones are dropped.
MAX_VARIANTS = 4

SHARD_FORM = re.compile(r"graphs-(\d{5,9})\.pt")
_GRAPH_FORM = {"shard": str, "read_as": str, "notes": list, "sources": list}
_SKIPPED_FORM = {"stage": str, "reason": str, "sources": list}


class Manifest:
    """What a cache folder holds: for each code the graphs, or the reasons why there is none, by source files.

    A record is a dictionary. That of a graph has `shard` (file name), `read_as` (how the ligand was read) and `notes`,
    that of a complex without one `stage` and `reason`; both have `sources`, of `file_signatures`.
    """

    def __init__(self, folder: Path, about: dict[str, Any]):
        """
        Args:
            about: what every graph of the folder was made with; a manifest with other values is not used.
        """
        self.path = folder / "manifest.json"
        self.about = about
        self.records: dict[str, list[dict]] = {}
        self.num_shards = 0  # ever written: the name of a shard is never used twice
        self._content: bytes | None = None

    def read(self) -> None:
        """Take in what is on disk now; what cannot be used is named, and its graphs will be built again."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = None
        except OSError as error:
            log.warning("%s cannot be read (%s); the graphs are built again", self.path, error)
            content = None
        if content is not None and content == self._content:
            return
        self._content = content
        numbers = [
            int(found[1]) for path in self.path.parent.glob("graphs-*") if (found := SHARD_FORM.fullmatch(path.name))
        ]
        self.records, self.num_shards = {}, 1 + max(numbers, default=-1)
        if content is not None:
            self._take_in(content)

    def find(self, code: str, paths: Sequence[Path]) -> dict | None:
        """The record made from these files as they are now, or None."""
        for record in reversed(self.records.get(code, [])):
            if _unchanged(record["sources"], paths):
                return record
        return None

    def add(self, code: str, record: dict) -> None:
        """Put a record in the place of one of the same files, beside those of others."""
        others = [one for one in self.records.get(code, []) if _content_of(one) != _content_of(record)]
        self.records[code] = [*others, record][-MAX_VARIANTS:]

    def next_shard(self) -> str:
        """The name of the next shard to write."""
        return f"graphs-{self.num_shards:05d}.pt"

    def take_in(self, other: Manifest) -> None:
        """Move the shards of another folder into this one, and their records."""
        other.read()
        names: dict[str, str] = {}
        for code, record in ((code, record) for code, records in other.records.items() for record in records):
            if (shard := record.get("shard")) and shard not in names:
                names[shard] = self.next_shard()
                self.num_shards += 1
                with contextlib.suppress(FileNotFoundError):  # moved by a run that was killed: built again
                    os.replace(other.path.parent / shard, self.path.parent / names[shard])
            self.add(code, {**record, "shard": names[shard]} if shard else record)
        self.write()

    def forget_shard(self, name: str) -> None:
        """Drop the records of a shard that cannot be used."""
        for code, records in self.records.items():
            self.records[code] = [record for record in records if record.get("shard") != name]

    def is_superseded(self, name: str) -> bool:
        """Whether this is the name of a shard in which no record has its graph."""
        used = {record.get("shard") for records in self.records.values() for record in records}
        return bool(SHARD_FORM.fullmatch(name)) and name not in used

    def write(self) -> None:
        content = {
            **self.about,
            "num_shards": self.num_shards,
            "records": {code: records for code, records in sorted(self.records.items()) if records},
        }
        write_text(self.path, json.dumps(content, separators=(",", ":"), ensure_ascii=False))

    def _take_in(self, content: bytes) -> None:
        try:
            manifest = json.loads(content)
            for name, value in self.about.items():
                if manifest[name] != value:
                    log.warning("%s: made with %s %s; the graphs are built again", self.path, name, manifest[name])
                    return
            num_shards, by_code = range(10**9)[manifest["num_shards"]], dict(manifest["records"])
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            log.warning("%s cannot be read (%s); the graphs are built again", self.path, error)
            return
        self.num_shards = max(self.num_shards, num_shards)
        self.records = {code: records for code, records in by_code.items() if _are_records(records)}
        odd = sorted(by_code.keys() - self.records.keys())
        if odd:
            log.warning("%s: records of the wrong form are built again: %s", self.path, ", ".join(odd[:10]))


def file_signatures(paths: Sequence[Path]) -> list:
    """Name, size in bytes, modification time in ns and content hash of each file a graph is made from."""
    stats = ((path, path.stat()) for path in paths)
    return [[path.name, stat.st_size, stat.st_mtime_ns, _content_hash(path)] for path, stat in stats]


def _are_records(records: object) -> bool:
    """Whether a part of a manifest, which anybody can edit, is what this program writes."""
    return isinstance(records, list) and all(map(_is_record, records))


def _is_record(record: object) -> bool:
    if not isinstance(record, dict):
        return False
    form = _GRAPH_FORM if "shard" in record else _SKIPPED_FORM
    if any(type(record.get(key)) is not kind for key, kind in form.items()):
        return False
    signatures = all(
        isinstance(one, list) and [type(v) for v in one] == [str, int, int, str] for one in record["sources"]
    )
    return signatures and ("shard" not in record or bool(SHARD_FORM.fullmatch(record["shard"])))


def _content_of(record: dict) -> list:
    """Names, sizes and hashes: what decides whether two records are of the same files."""
    return [(name, size, content) for name, size, _, content in record["sources"]]


def _content_hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _unchanged(sources: list, paths: Sequence[Path]) -> bool:
    if [path.name for path in paths] != [name for name, *_ in sources]:
        return False
    try:
        return all(_is_same(path, *facts) for path, (_, *facts) in zip(paths, sources, strict=True))
    except OSError:  # no permission, a drive that is gone: whoever builds the graph writes the row that says so
        return False


def _is_same(path: Path, size: int, mtime_ns: int, content: str) -> bool:
    stat = path.stat()
    is_like = S_ISREG(stat.st_mode) and stat.st_size == size
    return is_like and (stat.st_mtime_ns == mtime_ns or _content_hash(path) == content)
