"""Quality and divergence of models made noisy (DPKD, Figure 2)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from orchestration.figures import legend_below, look, panels

LINES = {
    "Rouge-L": {"rouge_l": "sampled", "greedy_rouge_l": "greedy"},
    "reverse KL, nats per token": {"reverse_kl_per_token": "sampled"},
}


def plot_noise(measured: Sequence[Sequence[Mapping[str, float]]]) -> Figure:
    """Draw the mean over models, and each model's points, against the noise.

    ``measured`` has for each model its scores at every sigma, with the key ``sigma``.
    """
    figure, axes = panels(len(LINES))
    for axis, (title, lines) in zip(axes, LINES.items(), strict=True):
        for index, (score, label) in enumerate(lines.items()):
            sigmas = sorted({point["sigma"] for model in measured for point in model})
            values = [
                [
                    point[score]
                    for model in measured
                    for point in model
                    if point["sigma"] == sigma and score in point
                ]
                for sigma in sigmas
            ]
            known = [(s, v) for s, v in zip(sigmas, values, strict=True) if v]
            style = look(index)
            axis.plot([s for s, _ in known], [np.mean(v) for _, v in known], label=label, **style)  # type: ignore[arg-type]
            for sigma, found in known:
                axis.scatter([sigma] * len(found), found, s=9, color=style["color"])
        axis.set(title=title, xlabel="noise, standard deviations of each weight tensor")
    legend_below(figure, axes[0])
    return figure
