"""Files that are whole or not there, and whose content is checked before it is used."""

from __future__ import annotations

import copy
import csv
import errno
import io
import os
import random
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from src.system import storage
from src.system.storage import (
    StorageError,
    cause,
    csv_line,
    prepare_folder,
    read_plain,
    remove_temporaries,
    write_csv,
    write_json,
    write_plain,
    write_text,
)

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX files")


def make_value(seed: int = 0, **changes: object) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "weights": {"w": torch.randn(64, 8, generator=draw), "b": torch.zeros(8, dtype=torch.int16)},
        "numbers": [1, 0.5, float("inf"), True, None],
        "pair": ("text", b"bytes"),
        7: {},
        **changes,
    }


def equal(one: object, other: object) -> bool:
    """Same types, keys and bits all the way down."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.pt"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good file."""
    path = tmp_path_factory.mktemp("good") / "some.pt"
    write_plain(path, make_value())
    return path.read_bytes()


def read_bytes(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return read_plain(path)


def save_anything(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def fail(error: BaseException) -> Callable[..., NoReturn]:
    def raising(*_args: object, **_kwargs: object) -> NoReturn:
        raise error

    return raising


# Writing


def test_what_is_written_comes_back(path: Path) -> None:
    value = make_value()
    write_plain(path, {**value, "weights": OrderedDict(value["weights"])})  # as state_dict() returns it
    assert equal(read_plain(path), value)
    assert os.listdir(path.parent) == [path.name]


def test_parameters_and_views_are_stored_as_their_own_values_only(path: Path) -> None:
    matrix = torch.zeros(1000, 1000)
    views = {"view": matrix[0], "expanded": torch.ones(1).expand(5), "p": torch.nn.Parameter(torch.ones(2))}
    write_plain(path, views)
    assert path.stat().st_size < 100_000  # the whole matrix has 4 MB
    loaded = read_plain(path)
    assert loaded["expanded"].tolist() == [1.0] * 5
    assert type(loaded["p"]) is torch.Tensor
    assert loaded["view"].shape == (1000,)


FOREIGN = [
    np.float64(1.0),
    np.zeros(2),
    Path("a"),
    torch.__version__,
    {1, 2},
    Counter("aa"),
    torch.float32,
    torch.zeros(2, device="meta"),
    torch.eye(2).to_sparse(),
    object(),
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda value: type(value).__name__)
def test_what_could_not_be_loaded_is_refused_by_name_when_writing(path: Path, foreign: object) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(StorageError, match=r"state\['config'\]\['a'\]\[1\]"):
        write_plain(path, {"config": {"a": [0, foreign]}})
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("key", [1.5, None, True, ("a",)])
def test_keys_must_be_text_or_whole_numbers(path: Path, key: object) -> None:
    with pytest.raises(StorageError, match=r"state\['config'\] has the key"):
        write_plain(path, {"config": {key: 1}})


def test_a_value_that_contains_itself_is_refused(path: Path) -> None:
    config: dict = {}
    config["self"] = config
    with pytest.raises(StorageError, match="nested too deeply"):
        write_plain(path, config)


@pytest.mark.fault("B1", "B14")
@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (torch, "save", RuntimeError("[enforce fail] unexpected pos 704 vs 598")),
        (os, "fsync", OSError(errno.ENOSPC, "No space left on device")),
        (os, "replace", OSError(errno.EIO, "Input/output error")),
    ],
)
def test_a_failed_write_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception
) -> None:
    write_plain(path, make_value())
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail(error))
        with pytest.raises(StorageError, match=r"some\.pt: not saved \(needs 0\.0 MB\)"):
            write_plain(path, make_value(1))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.fault("B1")
@posix
@pytest.mark.parametrize("what", ["tensors", "text"])
def test_a_full_disk_leaves_the_old_file(path: Path, what: str) -> None:
    import resource

    write_plain(path, make_value())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(StorageError, match="not saved"):
            write_plain(path, make_value(1)) if what == "tensors" else write_text(path, "x" * len(before))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.fault("B1")
def test_a_write_that_the_disk_garbled_does_not_replace_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plain(path, make_value())
    before = path.read_bytes()
    real_save = torch.save

    def garbled(value: object, file: io.BufferedIOBase) -> None:
        real_save(value, file)
        file.seek(-2500, os.SEEK_CUR)
        file.write(bytes(800))
        file.seek(0, os.SEEK_END)

    monkeypatch.setattr(torch, "save", garbled)
    with pytest.raises(StorageError, match="not saved"):
        write_plain(path, make_value(1))
    assert path.read_bytes() == before


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent.some\.pt: not saved"):
        write_plain(tmp_path / "absent" / "some.pt", make_value())


@pytest.mark.fault("B17")
@posix
def test_the_file_reaches_the_disk_before_its_name_and_the_name_before_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        acts.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        acts.append(f"replace {target.name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_plain(path, make_value(), before_replace=lambda: acts.append("complete"))
    assert acts == ["fsync file", "complete", "replace some.pt", "fsync folder"]


@pytest.mark.fault("B14")
@posix
def test_a_folder_that_cannot_be_synced_is_no_reason_to_stop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", fail(OSError(errno.EPERM, "not on this file system")))
    write_plain(path, make_value())
    assert equal(read_plain(path), make_value())


@pytest.mark.fault("K8")
@posix
def test_the_file_has_the_rights_of_any_other_new_file(path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_plain(path, make_value())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.fault("K8")
@posix
def test_a_link_laid_in_the_way_is_not_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.secrets, "token_hex", lambda num_bytes: "guessed")
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.with_name(".some.pt.guessed.tmp").symlink_to(victim)
    with pytest.raises(StorageError, match="FileExistsError"):
        write_plain(path, make_value())
    assert victim.read_text() == "precious"


def test_remains_of_interrupted_writes_are_removed_and_nothing_else(path: Path) -> None:
    stray = storage.temporary_path(path)
    others = [path, path.with_name(".other.csv.0123.tmp"), path.with_name("some.pt.tmp")]
    for file in [stray, *others]:
        file.write_bytes(b"x")
    remove_temporaries(path.parent, "*.pt")
    assert set(path.parent.iterdir()) == set(others)


@pytest.mark.fault("B14")
def test_a_slow_disk_is_written_to_and_waited_for_few_times(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 tensors of 1.8 MB: a network disk may take a second for each write."""
    acts = []
    real_fsync = os.fsync

    class SlowFile(io.FileIO):
        def write(self, content: bytes) -> int:
            acts.append("write")
            return super().write(content)

    def slow_open(name: Path, mode: str, buffering: int = io.DEFAULT_BUFFER_SIZE) -> Any:
        return io.BufferedWriter(SlowFile(name, "x"), buffering) if mode == "xb" else open(name, mode)

    monkeypatch.setattr(storage, "open", slow_open, raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (acts.append("fsync"), real_fsync(descriptor)))
    draw = torch.Generator().manual_seed(0)
    sizes = [4096] * 100 + [64] * 200
    write_plain(path, {f"w{n}": torch.randn(size, generator=draw) for n, size in enumerate(sizes)})
    assert 1_700_000 < path.stat().st_size < 1_900_000
    assert 1 <= acts.count("write") <= 4
    assert acts.count("fsync") == (2 if os.name == "posix" else 1)


# Damage


@pytest.mark.fault("B3")
@pytest.mark.parametrize("part", range(30))
def test_truncation_is_detected_at_every_length(path: Path, content: bytes, part: int) -> None:
    with pytest.raises(StorageError, match=r"some\.pt"):
        read_bytes(path, content[: len(content) * part // 30])


@pytest.mark.fault("B4")
def test_no_flipped_bit_changes_what_is_loaded(path: Path, content: bytes) -> None:
    good = read_bytes(path, content)
    chance = random.Random(0)
    detected = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        try:
            assert equal(read_bytes(path, damaged), good)  # padding between entries holds nothing
        except StorageError:
            detected += 1
    assert detected > 100


@pytest.mark.fault("B4")
def test_every_flipped_bit_in_the_tensors_is_detected(path: Path, content: bytes) -> None:
    weights = make_value()["weights"]["w"].numpy().tobytes()
    start = content.index(weights)
    for position in range(start, start + len(weights), 16):
        damaged = bytearray(content)
        damaged[position] ^= 1
        with pytest.raises(StorageError, match="wrong checksum"):
            read_bytes(path, damaged)


@pytest.mark.fault("B4")
def test_a_zeroed_block_is_detected(path: Path, content: bytes) -> None:
    for start in range(0, len(content) - 512, 512):
        with pytest.raises(StorageError):
            read_bytes(path, content[:start] + bytes(512) + content[start + 512 :])


def test_a_missing_file_and_a_folder_are_named(path: Path) -> None:
    for there in (path, path.parent):
        with pytest.raises(StorageError, match=f"{there.name}.*cannot be read"):
            read_plain(there)


# Strangers' files


class Bomb:
    def __init__(self, folder: Path):
        self.command = f"touch '{folder}/exploded'"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.fault("K1", "F7")
@pytest.mark.parametrize("depth", [0, 3])
def test_code_is_named_and_never_run(path: Path, depth: int) -> None:
    value: object = Bomb(path.parent)
    for _ in range(depth):
        value = {"deep": [value]}
    with pytest.raises(StorageError, match=r"asks to run '(posix|nt)\.system'"):
        read_plain(save_anything(path, value))
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.fault("K2")
@pytest.mark.parametrize("legacy", [b"", b"hello", b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00aRq."])
def test_other_kinds_of_files_are_named_as_such(path: Path, legacy: bytes) -> None:
    with pytest.raises(StorageError, match="not a file of this program"):
        read_bytes(path, legacy)


def rewrite(path: Path, content: bytes, *, compression: int = zipfile.ZIP_STORED, extra: tuple[str, ...] = ()) -> None:
    """The same entries in a zip of our making."""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in [*old.namelist(), *extra]:
            new.writestr(name, old.read(name))


@pytest.mark.fault("K3")
def test_compressed_entries_are_refused_before_they_are_expanded(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(path, content)
    assert equal(read_plain(path), make_value())  # the rewriting itself does no harm
    rewrite(path, content, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", fail(AssertionError("loaded")))
    with pytest.raises(StorageError, match="entries are compressed"):
        read_plain(path)


@pytest.mark.fault("K3")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_entries_are_refused(path: Path, content: bytes) -> None:
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    rewrite(path, content, extra=tuple(name for name in names if name.endswith("data.pkl")))
    with pytest.raises(StorageError, match="repeated names"):
        read_plain(path)


@pytest.mark.fault("K3")
def test_entries_that_share_bytes_are_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", bytes(10_000))
        for name in "bcd":
            archive.filelist.append(copy.copy(archive.filelist[0]))
            archive.filelist[-1].filename = name
    with pytest.raises(StorageError, match="claims more bytes"):
        read_plain(path)


@pytest.mark.fault("K4")
def test_a_tensor_without_its_data_is_refused(path: Path) -> None:
    giant = torch.zeros(1).expand(10**6, 10**6)
    with pytest.raises(StorageError, match=r"claims the shape \(1000000, 1000000\)"):
        read_plain(save_anything(path, {"w": giant}))
    assert path.stat().st_size < 50_000


@pytest.mark.fault("K3")
def test_lists_that_unfold_without_end_are_refused(path: Path) -> None:
    bomb: list = []
    for _ in range(60):
        bomb = [bomb, bomb]
    with pytest.raises(StorageError, match="stored twice"):
        read_plain(save_anything(path, {"a": bomb}))


@pytest.mark.parametrize("foreign", [{1}, Counter("a"), torch.float32, 1j, torch.eye(2).to_sparse()])
def test_loadable_but_not_plain_values_are_refused(path: Path, foreign: object) -> None:
    with pytest.raises(StorageError, match="refused: it holds"):
        read_plain(save_anything(path, {"a": foreign}))


# Text and tables


def test_text_is_utf8_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a b µ.txt"
    write_text(path, "5 Å\n")
    assert path.read_bytes() == b"5 \xc3\x85\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file.folder: no such folder can be made"):
        write_text(tmp_path / "file" / "folder" / "a.txt", "x")


@pytest.mark.fault("I14")
@pytest.mark.parametrize(
    "text",
    [
        *("=cmd|'/c calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\ufeff=1", "\u200b=1", "\n=1", "\x00=1"),
        *("\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "\ufe66SUM(1)", " \uff1d1"),
    ],
)
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "t.csv", [text], [[text]])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    assert header == row
    assert row[0].startswith("'")
    assert row[0].replace("'", "") == text.replace("'", "")
    assert csv_line([text]) == (tmp_path / "t.csv").read_text(encoding="utf-8").removeprefix(csv_line([text]))


@pytest.mark.fault("I14")
@pytest.mark.parametrize("separator", [";", "\t", "|", "\n"])
@pytest.mark.parametrize("sign", ["=1", "  @a", "\uff1d1"])
def test_no_part_of_a_cell_is_a_formula_where_commas_separate_nothing(separator: str, sign: str) -> None:
    for text in (f"a{separator}{sign}", f"a, b{separator}{sign}", f'"{separator}{sign}'):
        line = csv_line(["first", text])
        parts = re.split(rf"[{separator}\n]", line)
        assert not any(re.match(r'[\s"]*[=@\uff1d]', part) for part in parts), line
        assert line.count("'") == 1


def test_what_is_no_formula_stays() -> None:
    for text in ("a-b", "1,2-dichloro=x", "x; y", "(R)-a", "C=C", "2+", "a;b=c", "10 @ 2"):
        assert next(csv.reader([csv_line([text])])) == [text]
    assert csv_line([-1.5, None, 2]) == "-1.5,,2\n"


def test_json_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"rmse": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.fault("B2", "F8")
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_takes_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(Path, "touch", fail(OSError(number, os.strerror(number))))
    with pytest.raises(StorageError, match=rf"cannot be used as a folder to write to: .*{os.strerror(number)}"):
        prepare_folder(tmp_path)


@pytest.mark.fault("B2", "F8")
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file: cannot be used as a folder"):
        prepare_folder(tmp_path / "file")


@pytest.mark.fault("I14")
def test_a_carriage_return_cannot_start_a_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["a"], [["x\r=1"]])
    assert (tmp_path / "t.csv").read_bytes() == b"a\nx =1\n"


@pytest.mark.fault("I14")
def test_cells_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [["a,b", 'say "x"', "two\nlines", "µ", -1.5, None]]
    write_csv(tmp_path / "t.csv", list("abcdef"), rows)
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == ["a,b", 'say "x"', "two\nlines", "µ", "-1.5", ""]


def test_the_cause_of_a_fault_is_one_printable_line() -> None:
    text = cause(ValueError("\x1b[2J\u202e" + "x" * 1000 + "\nsecond"))
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 300
