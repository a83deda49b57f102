"""Attribution -> a drawing of the ligand coloured by contribution, and one HTML page without network and script."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D
from rdkit.Geometry import Point3D

from src.chemistry.atoms import clean_name
from src.evaluation.figures import for_page
from src.evaluation.web_page import document, escaped, section, table, tiles, warnings
from src.explanation.attribution import Attribution

RAISES, LOWERS = (0x2B, 0x7B, 0xBA), (0xE0, 0x82, 0x2F)  # told apart with every kind of colour vision
NUM_LABELS = 6  # atoms of the drawing that carry their number
MAX_DRAWN_ATOMS = 200  # a peptide beyond it is a thicket, and laying it out takes minutes

PAGE_CSS = """
:root { --raises: rgb(RAISES); --lowers: rgb(LOWERS); }
figure.ligand { background: #ffffff; border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; }
figure.ligand svg { margin: 0 auto; }
.scale { display: flex; align-items: center; gap: .6rem; font-size: .88rem; margin: .5rem 0; }
.scale i { width: 14rem; max-width: 40vw; height: .8rem; border-radius: .3rem; border: 1px solid var(--line);
  background: linear-gradient(to right, var(--lowers), #ffffff, var(--raises)); }
.share { display: inline-block; position: relative; width: 9rem; height: .7rem; border-radius: .2rem;
  background: linear-gradient(var(--muted), var(--muted)) center / 1px 100% no-repeat, var(--soft); }
.share i { position: absolute; top: 0; height: 100%; }
.raises { left: 50%; background: var(--raises); }
.lowers { right: 50%; background: var(--lowers); }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
.poses td:last-child { white-space: normal; text-align: left; overflow-wrap: anywhere; min-width: 16rem; }
.poses thead th:last-child { text-align: left; }
ul.files { padding-left: 1.2rem; }
""".replace("RAISES", " ".join(map(str, RAISES))).replace("LOWERS", " ".join(map(str, LOWERS)))

HOW_TO_READ = (
    "The model computes the pK as a constant plus one number for each contact, a pair of a ligand atom and an atom of "
    "the protein, an ion, a cofactor or a water within its cutoff. Summed over each ligand atom, and summed over each "
    "residue, these are two ways to share out the same total: each adds up to all of it, so the two must not be "
    "added to each other. A contribution says what this model made of the contact in this complex, not what was "
    "measured."
)
FILES = {
    "ligand.sdf": "the ligand as the model sees it (heavy atoms, neutral form) with atom.dprop.pK_contribution",
    "ligand.svg": "the drawing",
    "residues.csv": "the table of residues, all digits",
    "complex.pdb": "ligand and pocket, contributions in the B-factor column, their scale in a REMARK",
    "complex.pml": "opens complex.pdb in PyMOL and colours it; run it in its folder",
}

_INTERVAL = "90 % interval, pK"
_TITLE = "Why this score: {}, pK {:.3f}"


@dataclass(frozen=True)
class Score:
    """What a page says of a score beside what explains it."""

    model: str  # name of the model
    protein_file: str
    ligand_file: str
    interval: tuple[float, float] | None = None  # interval of the prediction, pK
    remarks: Sequence[str] = ()  # what to know before the score is believed


def drawing(
    attribution: Attribution,
    size: tuple[int, int] = (720, 460),
    *,
    largest: float | None = None,
    num_labels: int = NUM_LABELS,
    turned_to: np.ndarray | None = None,
) -> str | None:
    """The ligand in 2D as SVG, atoms blue that raise the pK and orange that lower it; None if it is too large.

    Args:
        size: width and height, px.
        largest: end of the colour scale, pK; None: the largest contribution of this ligand.
        turned_to: [atoms, 2] where the drawing of another ligand has these atoms, NaN where it has none.
    """
    if len(attribution.ligand) > MAX_DRAWN_ATOMS:
        return None
    values = attribution.of_ligand_atoms()
    mol = Chem.Mol(attribution.mol)
    for place in np.argsort(-np.abs(values), kind="stable")[:num_labels].tolist():
        mol.GetAtomWithIdx(place).SetProp("atomNote", f"{place + 1}:{values[place]:+.2f}")  # RDKit cannot draw U+2212
    end = largest or largest_of(values)
    colours = dict(enumerate(_colour(value, end) for value in values.tolist()))
    drawer = rdMolDraw2D.MolDraw2DSVG(*size)
    options = drawer.drawOptions()
    options.useBWAtomPalette()
    options.prepareMolsBeforeDrawing = False
    options.annotationFontScale = 0.6
    options.fixedBondLength = 45  # px, at most: a small ligand is not blown up
    options.setHighlightColour((1.0, 1.0, 1.0))
    with rdBase.BlockLogs():
        mol = _flat(mol, turned_to)
        radii = dict.fromkeys(colours, 0.4)
        drawer.DrawMolecule(
            mol, highlightAtoms=list(colours), highlightAtomColors=colours, highlightAtomRadii=radii, highlightBonds=[]
        )
    drawer.FinishDrawing()
    return drawer.GetDrawingText()


def layout(attribution: Attribution) -> np.ndarray:
    """[atoms, 2] where `drawing` has the atoms, in units of RDKit's; NaN for a ligand that is too large."""
    if len(attribution.ligand) > MAX_DRAWN_ATOMS:
        return np.full((len(attribution.ligand), 2), np.nan)
    with rdBase.BlockLogs():
        mol = _flat(Chem.Mol(attribution.mol))
    return mol.GetConformer().GetPositions()[:, :2]


def page(attribution: Attribution, score: Score, svg: str | None) -> str:
    """The page of one pose. Every name that comes from a file is escaped."""
    name = escaped(attribution.name)
    means = f", mean of {attribution.num_models} models" if attribution.num_models > 1 else ""
    numbers = [
        ("predicted pK", f"{attribution.pk:.3f}"),
        ("constant (no contacts)", f"{attribution.constant:.3f}"),
        ("from contacts", signed(attribution.total)),
        ("contacts", f"{len(attribution.contact_pk):,}"),
    ]
    if score.interval:
        numbers.insert(1, (_INTERVAL, "{:.1f} to {:.1f}".format(*score.interval)))
    files = "".join(f"<li><code>{file}</code> {escaped(what)}</li>" for file, what in FILES.items())
    body = (
        f"<header><h1>Why this score: {name}</h1><p class='lead'>"
        f"{escaped(score.ligand_file)} in {escaped(score.protein_file)}<br>"
        f"model: {escaped(score.model)}{means}</p></header>"
        + tiles(numbers)
        + warnings(score.remarks)
        + f"<p class='note'>pK is −log10 of the affinity in mol/L; one unit is a factor of ten. {HOW_TO_READ}</p>"
        + _drawing_section(attribution, svg)
        + _residue_section(attribution)
        + section("Files beside this page", f"<ul class='files'>{files}</ul>")
    )
    return document(escaped(_TITLE.format(attribution.name, attribution.pk)), body, PAGE_CSS)


def name_and_pk(text: str) -> tuple[str, str] | None:
    """What the title of a page says; None when `page` did not make it."""
    match = re.search(r"<title>(.*)</title>", text)
    match = match and re.fullmatch(r"Why this score: (.*), pK (\S+)", html.unescape(match[1]))
    return (match[1], match[2]) if match else None


def interval_and_remarks(text: str) -> tuple[str, str]:
    """How sure the score is, as a page of `page` says it; '' for what it does not say."""
    interval = re.search(rf"<span>{_INTERVAL}</span><b>(.*?)</b>", text)
    remarks = re.findall(r"<p class='warning'>(?:warning: )?(.*?)</p>", text, flags=re.DOTALL)
    return html.unescape(interval[1]) if interval else "", html.unescape("; ".join(remarks))


def index_page(rows: Iterable[tuple[str, str, str, str, str]]) -> str:
    """A list of poses: (name, pK, interval, remarks, address of the page relative to this one)."""
    cells = [
        (f"<a href='{escaped(address)}'>{escaped(name)}</a>", *map(escaped, (pk, interval, remarks)))
        for name, pk, interval, remarks, address in rows
    ]
    poses = table(("pose", "predicted pK", _INTERVAL, "warnings"), cells)
    header = "<header><h1>Explained poses</h1></header>"
    return document("Explained poses", f"{header}<div class='poses'>{poses}</div>", PAGE_CSS)


def picture(svg: str | None) -> str:
    """A drawing as part of a page."""
    if svg is None:
        return f"<p class='note'>No drawing: the ligand has more than {MAX_DRAWN_ATOMS} atoms.</p>"
    return f"<figure class='ligand'>{for_page(svg, 'the ligand coloured by contribution')}</figure>"


def colour_scale(largest: float) -> str:
    """What the colours of drawings mean, up to the largest contribution, pK."""
    return (
        f"<div class='scale'><span>lowers the pK (−{largest:.3f})</span><i></i>"
        f"<span>raises it (+{largest:.3f})</span></div>"
    )


def _drawing_section(attribution: Attribution, svg: str | None) -> str:
    note = "<p class='note'>Colour and numbers: what the atom adds in pK, behind its number in ligand.sdf.</p>"
    return section("Ligand atoms", picture(svg), colour_scale(largest_of(attribution.of_ligand_atoms())), note)


def _residue_section(attribution: Attribution) -> str:
    shares = attribution.residue_shares()
    largest = largest_of(np.array([share.pk for share in shares]))
    rows = [
        (
            escaped(clean_name(f"{share.residue.name} {share.residue.number}{share.residue.insertion}")),
            escaped(clean_name(share.residue.chain)) or "–",
            signed(share.pk),
            _bar(share.pk, largest),
            str(share.num_contacts),
            f"{share.closest:.2f}",
            ", ".join(share.kinds),
        )
        for share in shares
    ]
    header = ("residue", "chain", "contribution (pK)", "", "contacts", "closest (Å)", "kinds")
    total = ("sum", "", signed(attribution.total), "", f"{len(attribution.contact_pk)}", "", "")
    return section("Residues", table(header, rows, total) if rows else "<p>No residues in contact.</p>")


def _bar(value: float, largest: float) -> str:
    side = "raises" if value >= 0 else "lowers"
    return f"<span class='share'><i class='{side}' style='width:{50 * abs(value) / largest:.1f}%'></i></span>"


def _flat(mol: Chem.Mol, turned_to: np.ndarray | None = None) -> Chem.Mol:
    """The molecule laid out for a drawing, its aromatic rings as alternating bonds where that is possible."""
    if turned_to is not None:
        rdDepictor.Compute2DCoords(mol)
        _turn(mol.GetConformer(), turned_to)
    is_new = turned_to is None
    try:
        flat = rdMolDraw2D.PrepareMolForDrawing(mol, kekulize=True, addChiralHs=False, forceCoords=is_new)
    except (ValueError, RuntimeError):  # RDKit could sanitise the molecule only in part
        flat = Chem.Mol(mol)
        if is_new:
            rdDepictor.Compute2DCoords(flat)
    return flat


def _turn(flat: Chem.Conformer, towards: np.ndarray) -> None:
    """Turn and mirror a layout as a whole, so that its atoms lie near given points (orthogonal Procrustes problem)."""
    pos, known = flat.GetPositions(), np.isfinite(towards).all(axis=1)
    if known.sum() < 2:
        return
    own, theirs = pos[known, :2].mean(axis=0), towards[known].mean(axis=0)
    left, _, right = np.linalg.svd((pos[known, :2] - own).T @ (towards[known] - theirs))
    pos[:, :2] = (pos[:, :2] - own) @ left @ right + theirs
    for number, (x, y, _) in enumerate(pos.tolist()):
        flat.SetAtomPosition(number, Point3D(x, y, 0.0))


def largest_of(values: np.ndarray) -> float:
    """The end of the colour scale, pK; never 0."""
    return max(float(np.abs(values).max(initial=0.0)), 1e-6)


def _colour(value: float, largest: float) -> tuple[float, ...]:
    share = abs(value) / largest
    full = RAISES if value >= 0 else LOWERS
    return tuple(1.0 - share * (1.0 - channel / 255) for channel in full)


def signed(value: float, digits: int = 3) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")
