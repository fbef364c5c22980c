"""What a run's `metrics.jsonl` says of its course, step by step."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.exporter import LOG_NAME

WINDOW = 10
"""Steps that a point of a smoothed curve is the mean of."""
REWARD = "reward_teacher"
FORWARD_KL = "forward_kl_first_token"
REVERSE_KL = "reverse_kl_first_token"

Curves = Mapping[str, np.ndarray]
"""A statistic's values by its key, one a step; NaN where the step had none."""


def read_curves(folder: Path) -> Curves:
    """Return every numeric statistic of a run's steps; empty where it logged none."""
    path = folder / LOG_NAME
    if not path.exists():
        return {}
    return curves_of([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def curves_of(steps: Sequence[Mapping[str, Any]]) -> Curves:
    """Return the same of lines that are read already."""
    keys = {key for step in steps for key, value in step.items() if isinstance(value, int | float)}
    return {
        key: np.array([np.nan if step.get(key) is None else step[key] for step in steps], float)
        for key in sorted(keys)
    }


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return means over ``WINDOW`` steps, at most all of them; one step's batch is noise."""
    width = min(WINDOW, len(values))
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


def extremes(curves: Curves) -> dict[str, float]:
    """Return the least reverse KL and the largest reward of the smoothed curves, where known.

    DPKD's Table 3 has both, with the divergence of the first response token.
    """
    found = {}
    for metric, key, extreme in (
        (f"min_{REVERSE_KL}", REVERSE_KL, np.nanmin),
        (f"max_{REWARD}", REWARD, np.nanmax),
    ):
        if key in curves and not np.isnan(course := smoothed(curves[key])).all():
            found[metric] = float(extreme(course))
    return found
