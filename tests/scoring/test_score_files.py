"""Output files: what each ending holds, and that a killed screening goes on without a row twice or by half."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rdkit import Chem

import src.scoring.row_formats as row_formats_module
import src.scoring.score_files as score_files_module
from src.chemistry.ligands import LigandRecord
from src.scoring.poses import Pose
from src.scoring.score_files import ScoreFile, require_apart, signature
from src.system.locks import FolderInUseError
from src.system.storage import StorageError
from tests.complexes import MOL2, sdf_text

COLUMNS = ["ligand", "pK", "status"]
ENDINGS = ["csv", "csv.gz", "json", "json.gz", "sdf", "sdf.gz"]
WORK = {"input": [1, "abc"], "jitter": None}


def pose(name: str, text: str | None = None, kind: str = "sdf") -> Pose:
    path = Path(f"{name}.{kind}")
    text = sdf_text(name).replace("$$$$\n", "") if text is None else text
    return Pose(Path("p.pdb"), path, 1, LigandRecord(path, kind, 1, text))


def row(name: str, pk: float | None = 6.5) -> dict[str, object]:
    return {"ligand": name, "pK": pk, "status": "ok" if pk else "failed: no\nreason"}


def fill(file: ScoreFile, names: Sequence[str]) -> None:
    for name in names:
        file.add(row(name), pose(name), scored=True)


def interrupt(file: ScoreFile, saved: list[str], unsaved: Sequence[str] = ()) -> None:
    """Ctrl+C after these rows."""
    with contextlib.suppress(KeyboardInterrupt), file:
        fill(file, saved)
        file.save()
        fill(file, unsaved)
        raise KeyboardInterrupt


def kill(file: ScoreFile) -> None:
    """What the kernel does for a process that is killed."""
    if file._file:
        file._file.close()
    file._held.close()


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def names_in(path: Path) -> list[str]:
    text, kind = text_of(path), path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "csv":
        return [one["ligand"] for one in csv.DictReader(io.StringIO(text))]
    if kind == "json":
        return [one["ligand"] for one in json.loads(text)]
    return [block.split("\n")[0] for block in text.split("$$$$\n")[:-1]]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("names", [["a"], ["a", 'b, "c"', "µ"]])
def test_every_row_is_in_the_file_and_no_state_is_left(tmp_path: Path, ending: str, names: list[str]) -> None:
    path = tmp_path / f"scores.{ending}"
    with ScoreFile(path, WORK, COLUMNS) as file:
        fill(file, names)
    assert names_in(path) == names
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("moment", ["before the next save", "within a row", "at an interrupt"])
def test_a_killed_screening_goes_on_without_a_row_twice(tmp_path: Path, ending: str, moment: str) -> None:
    path, whole = tmp_path / f"scores.{ending}", tmp_path / f"whole.{ending}"
    names = [f"pose{number}" for number in range(7)]
    with ScoreFile(whole, WORK, COLUMNS) as file:
        fill(file, names)
    first = ScoreFile(path, WORK, COLUMNS)
    if moment == "at an interrupt":
        interrupt(first, names[:2], names[2:5])
        assert names_in(path) == names[:5]  # readable, though made again
    else:
        fill(first, names[:3])
        first.save()
        for name in names[3:5] * 9:
            fill(first, [name])
            first._write()  # on the disk, but not in the state
        kill(first)
        if moment == "within a row":
            path.write_bytes(path.read_bytes()[:-5])
    second = ScoreFile(path, WORK, COLUMNS)
    assert second.goes_on
    assert second.num_rows == second.num_scored == (2 if moment == "at an interrupt" else 3)
    with second:
        fill(second, names[second.num_rows :])
    assert text_of(path) == text_of(whole)
    assert not second.state_path.exists()


@pytest.mark.fault("A2")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("written", [None, 0, 1, -1])
def test_a_run_that_was_killed_before_its_first_state_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, written: int | None
) -> None:
    """Before the file is there, and with nothing, a byte and all of its beginning in it."""
    path, whole = tmp_path / f"scores.{ending}", tmp_path / f"whole.{ending}"
    with ScoreFile(whole, WORK, COLUMNS) as file:
        fill(file, ["a"])
    first = ScoreFile(path, WORK, COLUMNS)
    with monkeypatch.context() as patch:
        states = []
        real = score_files_module.write_json

        def write(*arguments: object) -> None:
            states.append(path.exists())
            if len(states) > 1 or written is None:
                raise KeyboardInterrupt
            real(*arguments)

        patch.setattr(score_files_module, "write_json", write)
        with pytest.raises(KeyboardInterrupt):
            fill(first, ["a"])
    kill(first)
    assert states[0] is False
    if written is not None:
        path.write_bytes(path.read_bytes()[:written] if written != -1 else path.read_bytes())
    with ScoreFile(path, WORK, COLUMNS) as second:
        fill(second, ["a"])
    assert text_of(path) == text_of(whole)
    assert not second.state_path.exists()


@pytest.mark.fault("M10")
def test_a_file_that_came_between_the_state_and_the_output_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    first = ScoreFile(path, WORK, COLUMNS)
    first._write_state(is_begun=False)
    path.write_text("precious")
    with pytest.raises(StorageError, match="cannot be written"):
        fill(first, ["a"])
    assert not first.state_path.exists()
    first._write_state(is_begun=False)
    kill(first)
    with pytest.raises(StorageError, match="is not ours"):
        ScoreFile(path, WORK, COLUMNS)
    assert path.read_text() == "precious"


@pytest.mark.fault("A12")
def test_one_output_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    (tmp_path / "link").symlink_to(tmp_path)
    with ScoreFile(path, WORK, COLUMNS) as file:
        for overwrite in (False, True):
            for same in (path, tmp_path / "link" / "scores.csv"):
                with pytest.raises(FolderInUseError, match=r"scores\.csv is being written by another process"):
                    ScoreFile(same, WORK, COLUMNS, overwrite=overwrite)
        with ScoreFile(tmp_path / "other.csv", WORK, COLUMNS) as other:
            fill(other, ["b"])
        fill(file, ["a"])
    (tmp_path / "link").unlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["other.csv", "scores.csv"]
    with pytest.raises(StorageError, match="exists"):  # which lets go of it
        ScoreFile(path, WORK, COLUMNS)
    with ScoreFile(path, WORK, COLUMNS, overwrite=True):
        pass


@pytest.mark.fault("A2")
@pytest.mark.parametrize("moment", ["between the two", "before either", "within a row"])
def test_the_molecules_beside_a_table_are_those_of_its_rows_after_a_kill(tmp_path: Path, moment: str) -> None:
    path, molecules, names = tmp_path / "scores.csv", tmp_path / "scores_poses.sdf", list("abcdef")
    first = ScoreFile(path, WORK, COLUMNS, molecules=molecules)
    with contextlib.ExitStack() as held:
        held.enter_context(first._held)
        held.enter_context(first._beside._held)
        fill(first, names[:3])
        first.save()
        fill(first, names[3:5])
        if moment == "between the two":
            first._beside.save()
        kill(first)
        kill(first._beside)
        if moment == "within a row":
            path.write_bytes(path.read_bytes()[:-1] + b"\nx,5")
    second = ScoreFile(path, WORK, COLUMNS, molecules=molecules)
    assert second.num_rows == 3
    with second:
        fill(second, names[3:])
    assert [line.split(",")[0] for line in text_of(path).splitlines()] == ["ligand", *names]
    assert [mol.GetProp("_Name") for mol in Chem.SDMolSupplier(str(molecules))] == names
    assert sorted(one.name for one in tmp_path.iterdir()) == ["scores.csv", "scores_poses.sdf"]


def test_molecules_that_are_gone_are_not_left_out_of_the_rest(tmp_path: Path) -> None:
    path, molecules = tmp_path / "scores.csv", tmp_path / "scores_poses.sdf"
    interrupt(ScoreFile(path, WORK, COLUMNS, molecules=molecules), ["a", "b"])
    molecules.unlink()
    for _ in range(2):  # the first leaves the files to others
        with pytest.raises(StorageError, match=r"scores_poses\.sdf has fewer rows than .*scores\.csv: add --overwrite"):
            ScoreFile(path, WORK, COLUMNS, molecules=molecules)
    with ScoreFile(path, WORK, COLUMNS, molecules=molecules, overwrite=True) as file:
        fill(file, ["a"])


def test_a_run_that_was_killed_after_its_last_row_gets_its_end(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    first = ScoreFile(path, WORK, COLUMNS)
    fill(first, ["a", "b"])
    first.save()
    kill(first)
    with ScoreFile(path, WORK, COLUMNS):
        pass
    assert names_in(path) == ["a", "b"]


def test_rows_are_saved_after_some_time_and_after_some_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_files_module, "MAX_PENDING", 10)
    with ScoreFile(tmp_path / "a.csv", WORK, COLUMNS) as file:
        fill(file, [str(number) for number in range(25)])
        assert json.loads(file.state_path.read_text())["rows"] == 22
        monkeypatch.setattr(score_files_module, "SAVE_EVERY_S", 0.0)
        fill(file, ["late"])
        assert json.loads(file.state_path.read_text())["rows"] == 26
        assert len(file._pending) == 0


@pytest.mark.fault("M10")
@pytest.mark.parametrize("changed", ["finished", "work", "columns", "shorter", "no state", "odd state"])
def test_rows_are_added_to_nothing_else(tmp_path: Path, changed: str) -> None:
    path = tmp_path / "scores.csv"
    file = ScoreFile(path, WORK, COLUMNS)
    interrupt(file, ["a"])
    work, columns = WORK, COLUMNS
    if changed == "finished":
        with ScoreFile(path, WORK, COLUMNS):
            pass
    elif changed == "work":
        work = {**WORK, "input": [1, "other"]}
    elif changed == "columns":
        columns = [*COLUMNS, "more"]
    elif changed == "shorter":
        path.write_text("")
    elif changed == "no state":
        file.state_path.unlink()
    else:
        file.state_path.write_text('{"rows": -1, "scored": 0, "bytes": 0, "work": {}}')
    before = path.read_bytes()
    with pytest.raises(StorageError, match="or add --overwrite"):
        ScoreFile(path, work, columns)
    assert path.read_bytes() == before
    with ScoreFile(path, work, columns, overwrite=True) as anew:
        fill(anew, ["b"])
    assert names_in(path) == ["b"]


@pytest.mark.fault("M10")
def test_nothing_is_replaced_before_there_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("precious")
    with pytest.raises(ValueError, match="bad protein"), ScoreFile(path, WORK, COLUMNS, overwrite=True):
        raise ValueError("bad protein")
    assert path.read_text() == "precious"


def test_a_molecule_is_kept_as_it_is_and_its_scores_are_properties(tmp_path: Path) -> None:
    path, block = tmp_path / "scores.sdf", sdf_text("a").replace("$$$$\n", "")
    tagged = f"{block}> <docking_score>\n-9.1\n\n"
    unfinished = f"{block}> <docking_score>\n-9.1\n"  # without the empty line that ends a field
    with ScoreFile(path, WORK, COLUMNS) as file:
        for text in (block, tagged, unfinished):
            file.add(row("a"), pose("a", text), scored=True)
        file.add(row("failed", None), pose("a"), scored=False)
        file.add(row("lost", None), Pose(Path("p.pdb"), Path("l.sdf"), 4, None, "damaged"), scored=False)
    records = text_of(path).split("$$$$\n")
    assert records[0].startswith(block)
    assert records[1].startswith(tagged)
    assert records[2] == records[1]
    found = list(Chem.SDMolSupplier(str(path)))
    assert [one.GetPropsAsDict().get("pK") for one in found] == [6.5, 6.5, 6.5, None, None]
    assert found[1].GetProp("docking_score") == "-9.1"
    assert found[3].GetProp("status") == "failed: no reason"
    assert (found[4].GetProp("_Name"), found[4].GetNumAtoms()) == ("lost", 0)


def items_of(path: Path) -> list[dict[str, str]]:
    """The data items of each molecule but for the list of ours; one that stands twice is a fault."""
    found = []
    for record in text_of(path).split("$$$$\n")[:-1]:
        pairs = re.findall(r"^>.*?<(.*?)>.*\n(.*)\n\n", record, flags=re.M)
        assert len(dict(pairs)) == len(pairs)
        found.append({name: value for name, value in pairs if name != "predict.py_items"})
    return found


def test_an_item_of_the_user_is_kept_beside_a_column_of_its_name(tmp_path: Path) -> None:
    path, block = tmp_path / "scores.sdf", sdf_text("a").replace("$$$$\n", "")
    measured = f"{block}>  <pK>  (1) \n> 8\n\n> <predicted_pK>\n7\n\n> 25 <note>\nx\n\n"
    columns = ["note", *COLUMNS]
    with ScoreFile(path, WORK, columns) as file:
        for text in (measured, block):
            one = replace(pose("a", text), given=("of the table",))
            file.add({"note": "of the table", **row("a")}, one, scored=True)
        file.add({"note": "", **row("failed", None)}, replace(pose("a", measured), given=("",)), scored=False)
    scored, plain, failed = items_of(path)
    users = {"pK": "> 8", "predicted_pK": "7", "note": "x"}
    ours = {"ligand": "a", "predicted_predicted_pK": "6.5", "status": "ok"}
    assert scored == {**users, "table_note": "of the table", **ours}
    assert plain == {"note": "of the table", "ligand": "a", "pK": "6.5", "status": "ok"}
    assert failed == {**users, "ligand": "failed", "predicted_predicted_pK": "", "status": "failed: no reason"}


@pytest.mark.parametrize("user", ["", "> <pK>\n8\n\n> <status>\nmeasured\n\n"])
def test_an_output_that_is_scored_again_loses_the_scores_of_before(tmp_path: Path, user: str) -> None:
    columns = [*COLUMNS, "protein_file", "ligand_file", "pK_sd_jitter", "pK_model_12"]
    files = {"protein_file": "p.pdb", "ligand_file": "l.sdf"}
    text, found = sdf_text("a").replace("$$$$\n", "") + user, []
    for number, names in enumerate((columns, columns[:-2], columns[:-2], columns[:-2])):
        path = tmp_path / f"{number}.sdf"
        pk = 6.5 if number != 2 else None
        with ScoreFile(path, WORK, names) as file:
            values = {**row("a", pk), **files, "pK_sd_jitter": 0.5, "pK_model_12": 6.0}
            file.add(values, pose("a", text), scored=pk is not None)
        found += items_of(path)
        text = text_of(path).replace("$$$$\n", "")
    prefix, users = ("predicted_", {"pK": "8", "status": "measured"}) if user else ("", {})
    again = {**users, "ligand": "a", f"{prefix}pK": "6.5", f"{prefix}status": "ok", **files}
    assert found[0] == {**again, "pK_sd_jitter": "0.5", "pK_model_12": "6.0"}
    assert found[1] == found[3] == again
    failed = {**again, f"{prefix}pK": "", f"{prefix}status": "failed: no reason"}
    assert found[2] == {name: value for name, value in failed.items() if value} | ({"predicted_pK": ""} if user else {})


def test_items_of_the_user_that_look_like_ours_outlive_every_scoring(tmp_path: Path) -> None:
    text = sdf_text("a").replace("$$$$\n", "") + "> <predicted_pK>\nUSER\n\n> <ligand>\nmine\n\n"
    users = {"predicted_pK": "USER", "ligand": "mine"}
    for number, note in enumerate(("x", "y", "z")):
        path = tmp_path / f"{number}.sdf"
        with ScoreFile(path, WORK, ["note", *COLUMNS]) as file:
            file.add({"note": note, **row("a", 6.0 + number)}, replace(pose("a", text), given=(note,)), scored=True)
        ours = {"note": note, "predicted_ligand": "a", "pK": str(6.0 + number), "status": "ok"}
        assert items_of(path) == [users | ours]
        text = text_of(path).replace("$$$$\n", "")
    forged = text.replace("predict.py_items>\n[", "predict.py_items>\n{")
    with ScoreFile(tmp_path / "forged.sdf", WORK, COLUMNS) as file:
        file.add(row("a"), pose("a", forged), scored=True)
    assert users.items() <= items_of(tmp_path / "forged.sdf")[0].items()


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    path, link, hard = (tmp_path / name for name in ("a.sdf", "link.sdf", "hard.sdf"))
    path.write_text("precious")
    link.symlink_to(path)
    os.link(path, hard)
    for output in (path, link, hard):
        with pytest.raises(StorageError, match=r"is the input .*a\.sdf too: give another file"):
            require_apart(output, [Path("-"), tmp_path / "absent.sdf", path])
    (tmp_path / "b.sdf").write_text("precious")
    require_apart(tmp_path / "b.sdf", [Path("-"), path])
    require_apart(tmp_path / "new.sdf", [tmp_path / "new.sdf"])


def test_a_mol2_becomes_a_molecule_of_the_sdf(tmp_path: Path) -> None:
    path = tmp_path / "scores.sdf"
    with ScoreFile(path, WORK, COLUMNS) as file:
        file.add(row("acetamide"), pose("acetamide", MOL2, "mol2"), scored=True)
        commented = MOL2.replace("@<TRIPOS>ATOM\n", "@<TRIPOS>ATOM\n# docked\n")
        file.add(row("commented"), pose("acetamide", commented, "mol2"), scored=True)
        file.add(row("damaged", None), pose("damaged", "@<TRIPOS>MOLECULE\n", "mol2"), scored=False)
    first, second, third = Chem.SDMolSupplier(str(path))
    assert (first.GetNumAtoms(), first.GetProp("pK")) == (4, "6.5")
    assert second.GetNumAtoms() == 4  # what can be scored can be written
    assert third.GetNumAtoms() == 0


DOLLARS = ["$$$$", "$$$$ x", "y\n$$$$\nz", "y $$$$$$$$", "\x85$$$$", "\u2028$$$$", "\f$$$$\n"]


@pytest.mark.fault("I14")
@pytest.mark.parametrize("text", DOLLARS)
def test_no_name_and_no_cell_ends_a_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.sdf"
    columns = [text, "b>\n> <pK", "note", *COLUMNS]
    given = dict.fromkeys(columns[:3], text)
    titled = MOL2.replace("acetamide", text.replace("\n", " "), 1)
    assert titled != MOL2
    with ScoreFile(path, WORK, columns) as file:
        for name, one in (("a", pose("a")), (text, pose("b", titled, "mol2")), (text, pose("c", "none", "mol2"))):
            file.add({**given, **row(name)}, replace(one, given=tuple(given.values())), scored=True)
    content = path.read_bytes()
    assert content.count(b"$$$$") == 3  # for a reader that looks for nothing else
    mols = list(Chem.SDMolSupplier(str(path)))
    assert [mol.GetNumAtoms() for mol in mols] == [4, 4, 0]
    for mol in mols:
        names = list(mol.GetPropNames())
        assert len(names) == len(set(names)) == 7
        assert {"b pK", "note", "ligand", "pK", "status"} <= set(names)
        assert mol.GetProp("pK") == "6.5"
        assert "$$ $$" in mol.GetProp("note")


@pytest.mark.fault("F5")
def test_what_ended_a_process_is_not_read_in_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.sdf"
    monkeypatch.setattr(row_formats_module, "parse_ligand", lambda *_: pytest.fail("read"))
    with ScoreFile(path, WORK, COLUMNS) as file:
        file.add(row("a", None), pose("a", MOL2, "mol2"), scored=False, is_lost=True)
        file.add(row("b", None), pose("b"), scored=False, is_lost=True)
    assert [(mol.GetProp("_Name"), mol.GetNumAtoms()) for mol in Chem.SDMolSupplier(str(path))] == [("a", 0), ("b", 4)]


def test_a_signature_tells_files_and_their_changes_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("x")
    whole = signature(paths)
    assert whole == signature(paths)
    assert whole[0] == 2
    assert signature(paths[:1]) != whole
    paths[0].write_text("xy")
    assert signature(paths) != whole
    content = signature(paths, content=True)
    (tmp_path / "b").touch()
    assert signature(paths, content=True) == content
    (tmp_path / "b").write_text("z")
    assert signature(paths, content=True) != content
    (tmp_path / "b").unlink()
    assert signature(paths)[0] == 2
    assert signature([Path("-")]) != signature([Path("-")])


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ((), ["pK", "pK_low"]),
        (("code", "value"), ["pK", "pK_low"]),
        (("code", "pk"), ["predicted_pK", "predicted_pK_low"]),
        (("pK", "predicted_pK_low"), ["predicted_predicted_pK", "predicted_predicted_pK_low"]),
    ],
)
def test_our_columns_keep_together_beside_the_users(given: tuple[str, ...], ours: list[str]) -> None:
    assert list(row_formats_module.own_names(["pK", "pK_low"], given).values()) == ours
