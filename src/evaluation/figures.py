"""Arrays of an evaluation -> figures as SVG text that takes its colours from the page around it.

Matplotlib is imported when a figure is drawn, so that all else works without it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from src.evaluation.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that no figure has by itself, and the variables of the page that take their place in the SVG.
INK, MUTED, LINE, ACCENT, SECOND, PAPER = (f"#0{n}0{n}0{n}" for n in range(1, 7))
PAGE_COLOURS = dict(
    zip((INK, MUTED, LINE, ACCENT, SECOND, PAPER), ("ink", "muted", "line", "accent", "second", "paper"), strict=True)
)
NUM_NAMED = 6  # errors, by the code of the complex
POINTS = {"s": 16, "alpha": 0.6, "linewidths": 0, "color": ACCENT}
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "report",  # the same figure is the same text each time
    "text.parse_math": False,  # a $ in a name is a $
    **{"font.family": "sans-serif", "font.size": 9.5, "axes.titlesize": 10, "axes.titlelocation": "left"},
    **{"grid.linewidth": 0.6, "lines.linewidth": 1.6},
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "legend.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), LINE),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), MUTED),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def learning_curves(history: Sequence[Mapping[str, float]]) -> str:
    """RMSE of training and validation, and correlations of the validation set, by epoch."""

    def draw(left: Axes, right: Axes) -> None:
        epochs = [row["epoch"] for row in history]
        curves = ((left, "train_rmse", "training", MUTED), (left, "validation_rmse", "validation", ACCENT))
        curves += (
            (right, "validation_pearson", "Pearson R", ACCENT),
            (right, "validation_spearman", "Spearman ρ", SECOND),
        )
        for axes, column, label, colour in curves:
            values = [row.get(column, np.nan) for row in history]
            axes.plot(epochs, values, color=colour, label=label, marker="o" if len(epochs) < 3 else None)
        validation = np.array([row.get("validation_rmse", np.nan) for row in history], dtype=float)
        if np.isfinite(validation).any():
            best = int(np.nanargmin(validation))
            left.plot(epochs[best], validation[best], "o", color=ACCENT, label=f"best, epoch {epochs[best]}")
        left.set_ylabel("RMSE (pK)")
        right.set_ylabel("correlation on the validation set")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()

    return _svg(draw, columns=2, size=(8.6, 3.1), description="learning curves")


def parity(predicted: np.ndarray, measured: np.ndarray, codes: Sequence[str]) -> str:
    """Predicted against measured pK: the diagonal, one pK either side, the regression line, and the largest errors."""

    def draw(axes: Axes) -> None:
        both = np.concatenate([predicted, measured])
        ends = np.array([both.min() - 0.5, both.max() + 0.5])
        axes.fill_between(ends, ends - 1, ends + 1, color=MUTED, alpha=0.12, linewidth=0, label="within 1 pK")
        axes.plot(ends, ends, color=MUTED, linewidth=1, label="perfect")
        axes.scatter(measured, predicted, **POINTS)
        for place in np.argsort(-np.abs(predicted - measured), kind="stable")[:NUM_NAMED].tolist():
            axes.annotate(codes[place], (measured[place], predicted[place]), (3, 3), textcoords="offset points")
        if len(measured) > 4 and np.ptp(measured) > 0:
            line = np.polynomial.Polynomial.fit(measured, predicted, 1)
            axes.plot(*line.linspace(2), color=SECOND, label="regression")
        axes.set(xlabel="measured pK", ylabel="predicted pK", xlim=ends, ylim=ends)
        axes.set_aspect("equal")
        axes.legend(loc="upper left")

    return _svg(draw, size=(5.2, 5.2), description="predicted against measured pK")


def residuals(predicted: np.ndarray, measured: np.ndarray, heavy_atoms: np.ndarray, kinds: Sequence[str]) -> str:
    """Error against the size of the ligand, and by kind of affinity."""

    def draw(left: Axes, right: Axes) -> None:
        error = predicted - measured
        left.scatter(heavy_atoms, error, **POINTS)
        left.set(xlabel="heavy atoms of the ligand", ylabel="predicted − measured (pK)")
        names = sorted(set(kinds))
        groups = [error[np.array(kinds) == name] for name in names]
        line = {"color": INK, "linewidth": 1}
        right.boxplot(groups, widths=0.5, showfliers=True, boxprops=line, whiskerprops=line, capprops=line,
                      medianprops={"color": ACCENT, "linewidth": 2},
                      flierprops={"marker": ".", "markeredgecolor": MUTED})  # fmt: skip
        right.set_xticks(range(1, len(names) + 1), [f"{n}\n{len(g)}" for n, g in zip(names, groups, strict=True)])
        right.set(xlabel="kind of affinity, complexes")
        for axes in (left, right):
            axes.axhline(0, color=MUTED, linewidth=1)

    return _svg(draw, columns=2, size=(8.6, 3.4), description="errors against ligand size and kind", widths=(2, 1))


def intervals(rows: Mapping[str, Mapping[str, Interval]]) -> str:
    """RMSE and Pearson's R of each predictor with 95% intervals; the first row is the model."""

    def draw(*both: Axes) -> None:
        names = list(rows)[::-1]
        for axes, metric, label in zip(
            both, ("rmse", "pearson"), ("RMSE (pK), lower is better", "Pearson R"), strict=True
        ):
            for place, name in enumerate(names):
                value = rows[name][metric]
                colour = ACCENT if place == len(names) - 1 else MUTED
                axes.plot([value.low, value.high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
                axes.plot(value.value, place, "o", color=colour)
            axes.set_yticks(range(len(names)), names if metric == "rmse" else [""] * len(names))
            axes.set(xlabel=label, ylim=(-0.6, len(names) - 0.4))
            axes.grid(axis="y", visible=False)

    return _svg(draw, columns=2, size=(8.6, 0.9 + 0.3 * len(rows)), description="this model beside the baselines")


def molecule_drawing(smiles: str, size: tuple[int, int] = (220, 150)) -> str | None:
    """A 2D drawing of a ligand; None when the SMILES is empty or cannot be read."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
    if mol is None:
        return None
    rdDepictor.SetPreferCoordGen(True)
    drawer = rdMolDraw2D.MolDraw2DSVG(*size)
    options = drawer.drawOptions()
    options.clearBackground = False
    options.fixedBondLength = 22
    options.setAtomPalette({-1: (1 / 255,) * 3, 7: (4 / 255,) * 3, 8: (5 / 255,) * 3})
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol)
    drawer.FinishDrawing()
    return for_page(drawer.GetDrawingText(), "drawing of the ligand")


def for_page(svg: str, description: str) -> str:
    """The SVG element alone, its colours as variables of the page, with a name for those who cannot see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?=([\'"])[^\'"]*\2|\sxml:space=([\'"])[^\'"]*\3', "", svg)  # HTML needs no namespaces
    svg = svg.replace("xlink:href", "href")
    svg = re.sub("#0([1-6])0(?:\\1)0(?:\\1)", lambda match: f"var(--{PAGE_COLOURS[match[0]]})", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)


def _svg(
    draw: Callable[..., None],
    *,
    size: tuple[float, float],
    description: str,
    columns: int = 1,
    widths: tuple[float, ...] | None = None,
) -> str:
    """Run a drawing function on fresh axes; size in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, columns, width_ratios=widths, squeeze=False)[0]
        draw(*axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return for_page(text.getvalue(), description)
