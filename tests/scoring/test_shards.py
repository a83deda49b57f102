"""Parts of a screening: every pose is in one of them, and together they are what one command writes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import predict
from src.scoring.poses import Pose
from src.scoring.score_files import ScoreFile
from src.scoring.shards import Shard, merge_shards
from src.system.storage import StorageError

COLUMNS = ["ligand", "pK", "status"]
NAMES = ["a", 'b, "c"', "d\ne", "µ", "f", "g", "h"]


def write(path: Path, names: list[str], columns: list[str] = COLUMNS) -> None:
    with ScoreFile(path, {}, columns) as file:
        file.begin()
        for name in names:
            pose = Pose(Path("p.pdb"), Path("x.sdf"), 1, None)
            file.add({"ligand": name, "pK": 6.5, "status": "failed: no\nreason"}, pose, scored=True)


def write_parts(output: Path, count: int, names: list[str] = NAMES) -> list[Path]:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for shard in shards:
        write(shard.path(output), list(shard.of(names)))
    return [shard.path(output) for shard in shards]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "json", "json.gz", "sdf", "sdf.gz"])
def test_the_parts_make_the_file_that_one_command_writes(tmp_path: Path, ending: str, count: int) -> None:
    whole, output = tmp_path / f"whole.{ending}", tmp_path / f"scores.x.{ending}"
    write(whole, NAMES)
    write_parts(output, count)
    assert merge_shards(output) == len(NAMES)
    read = gzip.decompress if ending.endswith("gz") else bytes
    assert read(output.read_bytes()) == read(whole.read_bytes())


def test_a_part_that_is_missing_or_not_finished_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    with pytest.raises(StorageError, match="no parts beside"):
        merge_shards(output)
    first, second, third = write_parts(output, 3)
    second.rename(tmp_path / "away")
    with pytest.raises(StorageError, match=r"scores\.2-of-3\.csv is missing"):
        merge_shards(output)
    (tmp_path / "away").rename(second)
    state = third.with_name(f"{third.name}.state.json")
    state.touch()
    with pytest.raises(StorageError, match=r"scores\.3-of-3\.csv is not finished"):
        merge_shards(output)
    state.unlink()
    assert not output.exists()
    merge_shards(output)
    with pytest.raises(StorageError, match="exists"):
        merge_shards(output)
    assert merge_shards(output, overwrite=True) == len(NAMES)
    assert first.exists()


@pytest.mark.parametrize(("names", "late"), [([], 1), (NAMES[:3], 3), (NAMES, 2)])
def test_parts_of_unlike_screenings_are_refused(tmp_path: Path, names: list[str], late: int) -> None:
    output = tmp_path / "scores.csv"
    paths = write_parts(output, 3)
    paths[late - 1].unlink()
    write(paths[late - 1], names)
    with pytest.raises(StorageError, match="too many rows for its number"):
        merge_shards(output)
    paths[late - 1].unlink()
    write(paths[late - 1], NAMES[late - 1 :: 3], [*COLUMNS, "more"])
    with pytest.raises(StorageError, match="other columns"):
        merge_shards(output)
    write(Shard(1, 2).path(output), NAMES)
    with pytest.raises(StorageError, match="parts of 2 and of 3"):
        merge_shards(output)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", "１/３"])
def test_a_part_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        predict.main(["--protein_path", "p.pdb", "--ligand_path", "l.sdf", "--output", "o.csv", f"--shard={text}"])
    assert ended.value.code == 2
    assert "such as 3/16" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--output", "-"], ["--output", "o.csv", "--top", "3"]])
@pytest.mark.parametrize("what", [["--shard", "1/3"], ["--merge"]])
def test_what_cannot_be_parted_is_refused(what: list[str], more: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        predict.main(["--protein_path", "p.pdb", "--ligand_path", "l.sdf", *what, *more])
    assert "need an --output" in capsys.readouterr().err
