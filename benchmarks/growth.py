"""How cost grows: pairs a second of the whole loop, over length, batch, samplers, vocabulary.

    python -m benchmarks.growth [AXIS ...]

One run of `benchmarks/loop.yaml` a point, overlapped by a step, with models of random weights,
which seldom end a response before its longest. What was measured is kept in
`benchmarks/growth.json` (remove it to measure anew), so that an interrupted measurement goes on;
pictures go to `docs/pictures`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.loop_models import random_model
from benchmarks.loop_run import ROOT, run_loop
from configs.models import MakeModel

KEPT = Path(__file__).with_name("growth.json")
PICTURES = ROOT / "docs" / "pictures"
ROWS = 80
"""Prompts: few, so that their y_t are soon in the cache, as they are in most of a long run."""
STEPS, WARM_UP, LAG = 30, 10, 1
_STUDENT = MakeModel(hidden_size=128, layers=2, heads=4, context=640, initializer_range=0.02)
_TEACHER = MakeModel(hidden_size=192, layers=4, heads=6, context=640, initializer_range=0.02)


class Axis(NamedTuple):
    """One quantity that is varied, all others as they are."""

    label: str
    values: Sequence[int]
    overrides: str
    """Of a run with value {}; the vocabulary is the models' own."""


AXES = {
    "length": Axis(
        "longest response, tokens",
        (32, 64, 128, 256, 512),
        "student.sampling.max_new_tokens={0} teacher.sampling.max_new_tokens={0}",
    ),
    "batch": Axis(
        "pairs a step",
        (8, 16, 32, 64, 128),
        "learner.batch_size={0} student.batch_size={0}",
    ),
    "samplers": Axis("samplers", (1, 2, 3, 4), "student.replicas={0} cluster.local_cpus=4"),
    "vocabulary": Axis("vocabulary", (1_000, 4_000, 16_000, 64_000), ""),
}
_VOCABULARY = 2_000
"""Where it is not what is varied."""


def main() -> int:
    """Measure what is not kept, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=", ".join(AXES))
    wanted = parser.parse_args().axes or list(AXES)
    if unknown := sorted(set(wanted) - set(AXES)):
        parser.error(f"no axis {', '.join(unknown)}; there are {', '.join(AXES)}")
    for name in wanted:
        _measure(name)
        _draw(name)
    return 0


def _measure(name: str) -> None:
    axis = AXES[name]
    for value in axis.values:
        kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        points = kept.setdefault(name, {})
        if str(value) not in points:
            points[str(value)] = _point(axis, value)
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"{name} {value}: {points[str(value)]}", flush=True)


def _point(axis: Axis, value: int) -> dict[str, Any]:
    vocabulary = value if axis.label == "vocabulary" else _VOCABULARY
    with tempfile.TemporaryDirectory() as folder:
        models = []
        for role, make in (("student", _STUDENT), ("teacher", _TEACHER)):
            random_model(make, vocabulary, role, Path(folder) / role)
            models.append(f"{role}.model={Path(folder) / role}")
        seen = run_loop(
            [
                *models,
                f"data.embedded_rows={ROWS}",
                f"learner.steps={STEPS}",
                f"replay.max_policy_lag={LAG}",
                *axis.overrides.format(value).split(),
            ],
            warm_up=WARM_UP,
            left_out=LAG,
        )
    return {
        "pairs_per_second": round(seen.pairs_per_second, 2),
        "response_tokens": round(seen.response_tokens, 1),
        "busy": seen.busy(),
    }


def _draw(name: str) -> None:
    """Draw pairs a second, and response tokens a second beside them, over one axis."""
    from matplotlib.figure import Figure

    points = json.loads(KEPT.read_text())[name]
    values = [int(value) for value in points]
    pairs = [point["pairs_per_second"] for point in points.values()]
    tokens = [point["pairs_per_second"] * point["response_tokens"] for point in points.values()]
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(values, pairs, marker="o", color="C0", label="pairs/s")
    axes.set(xlabel=AXES[name].label, ylabel="pairs/s")
    axes.set_ylim(bottom=0)
    if name != "samplers":
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    beside = axes.twinx()
    beside.plot(values, tokens, marker="s", color="C1", linestyle="--", label="tokens of y_s/s")
    beside.set_ylabel("tokens of y_s/s")
    beside.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(PICTURES / f"growth_{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
