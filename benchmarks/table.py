"""The figures as a table in `docs/performance.md`.

python -m benchmarks.table
"""

from pathlib import Path

from benchmarks.figures import BARS, kept

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- figures: python -m benchmarks.table -->\n", "<!-- end of figures -->\n"


def write() -> None:
    """Put the kept figures into the document."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}{table()}{END}{after}")


def table() -> str:
    """Return the kept figures as Markdown."""
    lines = [
        "| figure | what it is | bar | measured | spread, runs | command |",
        "|---|---|---:|---:|---|---|",
    ]
    for figure in kept():
        bar = BARS[figure["name"]]
        sign = "≥" if bar.at_least else "≤"
        low, high = figure["spread"]
        missed = "" if bar.holds(figure["ratio"]) else " (missed)"
        lines.append(
            f"| `{figure['name']}` | {bar.what} | {sign} {bar.ratio:g} "
            f"| {figure['ratio']:g}{missed} | {low:g} to {high:g}, {figure['runs']} "
            f"| `{figure['command']}` |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write()
