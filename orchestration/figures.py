"""How every figure of a comparison is made and saved."""

from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANEL = (4.4, 3.4)
"""Width and height of one panel, inches."""
GREY = "0.45"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6bb1")
"""Told apart by colour-blind readers too (Okabe & Ito, and one more)."""
DASHES = ("-", "--", ":", "-.")


def panels(count: int, *, columns: int | None = None) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels, side by side unless told how many a row."""
    across = min(columns or count, count)
    down = -(-count // across)
    figure = Figure(figsize=(PANEL[0] * across, PANEL[1] * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.remove()
    for axis in axes[:count]:
        axis.grid(alpha=0.3, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[:count]


def look(index: int) -> dict[str, str]:
    """Return colour and dash of the ``index``-th line: they recur after 32."""
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dash}


def legend_below(figure: Figure, *axes: Axes, columns: int = 4) -> None:
    """Put one legend for all panels under them: the lines of ``axes``, each label once.

    It has fewer columns where its labels are too long for so many, and the figure grows by its
    height: panels stay as high as they are.
    """
    known: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    labels, handles = list(known), list(known.values())
    for count in range(min(columns, len(labels)), 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=count, frameon=False
        )
        size = legend.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        if size.width <= figure.bbox.width or count == 1:
            figure.set_figheight(figure.get_figheight() + size.height / figure.dpi)
            return
        legend.remove()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name.png`` and ``name.svg``, the same bytes for the same numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(folder / f"{name}.png", dpi=160)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
