"""`table.md`: the tables of a comparison, with intervals of the differences to the baseline."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev

from orchestration.bootstrap import DRAWS, bootstrap
from orchestration.comparison_results import TEACHER, WARM_START, Entry, Result
from orchestration.length_buckets import bucket_names
from orchestration.table import COLUMNS
from orchestration.training_curves import REVERSE_KL, REWARD, WINDOW

HEADINGS = {score: heading.replace("\n", " ") for score, (heading, _) in COLUMNS.items()}
PAIRED = ("rouge_l", "greedy_rouge_l", "exact_match", "greedy_exact_match", "reverse_kl_nats")
"""Scores that are known prompt by prompt."""
Cell = Callable[[str], str]
"""Writes what is known of a method."""


class Tables:
    """Writes the tables of what finished runs found.

    ``labels`` gives every method of the plan, in its order, and what it is called.
    """

    def __init__(
        self, labels: dict[str, str], entries: Sequence[Entry], results: Sequence[Result]
    ) -> None:
        """Sort the numbers by method."""
        self.labels = {WARM_START: WARM_START, **labels, TEACHER: TEACHER}
        self._methods = list(labels)
        self._entries = {name: [e for e in entries if e.method == name] for name in self.labels}
        self._values: dict[tuple[str, str], dict[int, float]] = {}
        for line in results:
            self._values.setdefault((line.method, line.metric), {})[line.seed] = line.value

    def scores(self) -> str:
        """Mean and standard deviation over seeds of every score."""
        columns = {HEADINGS[score]: self._cell(score, form) for score, (_, form) in COLUMNS.items()}
        return self._table(self.labels, columns)

    def differences(self, baseline: str) -> str:
        """Differences to the baseline, paired by seed and prompt, with their intervals."""
        others = [name for name in [WARM_START, *self._methods] if name != baseline]
        columns = {HEADINGS[score]: self._difference(score, baseline) for score in PAIRED}
        return self._table(others, columns)

    def costs(self) -> str:
        """Time and teacher tokens that a method takes, and the Rouge-L that it gains for them."""
        columns = {
            "seconds per step": self._cell("seconds_per_step", "{:.2f}"),
            "wall clock of the run, s": self._cell("wall_seconds", "{:.0f}"),
            "teacher tokens": self._cell("teacher_tokens", "{:.0f}"),
            "Rouge-L gained per minute of steps": self._gain(_minutes),
            "Rouge-L gained per million teacher tokens": self._gain(_teacher_millions),
        }
        return self._table(self._methods, columns)

    def by_length(self, score: str, cuts: Sequence[int]) -> str:
        """One score in buckets of the gold response's words."""
        columns = {
            name: self._cell(f"{score}_bucket_{number}", "{:.2f}")
            for number, name in enumerate(bucket_names(cuts))
        }
        return self._table(self.labels, columns)

    def course(self) -> str:
        """Extremes of the first token's reverse KL and of the reward (the paper's Table 3)."""
        columns = {
            "Rouge-L sampled": self._cell("rouge_l", "{:.2f}"),
            "least reverse KL, nats": self._cell(f"min_{REVERSE_KL}", "{:.4f}"),
            "largest reward": self._cell(f"max_{REWARD}", "{:.4f}"),
        }
        return self._table(self._methods, columns)

    def _table(self, methods: Iterable[str], columns: dict[str, Cell]) -> str:
        lines = [f"| | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
        for name in methods:
            if self._entries[name]:
                cells = [cell(name) for cell in columns.values()]
                lines.append(f"| {self.labels[name]} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _cell(self, metric: str, form: str) -> Cell:
        return lambda name: mean_and_deviation(self._seeds(name, metric).values(), form)

    def _seeds(self, name: str, metric: str) -> dict[int, float]:
        return self._values.get((name, metric), {})

    def _difference(self, score: str, baseline: str) -> Cell:
        return lambda name: interval_cell(
            paired_differences(self._entries[name], self._entries[baseline], score), "{:+.2f}"
        )

    def _gain(self, cost: Callable[[Entry], float | None]) -> Cell:
        """Mean over seeds of (score after - score before) / cost."""
        before = self._seeds(WARM_START, "rouge_l")

        def cell(name: str) -> str:
            found = [
                (entry.scores["rouge_l"] - before[entry.seed]) / spent
                for entry in self._entries[name]
                if "rouge_l" in entry.scores and entry.seed in before and (spent := cost(entry))
            ]
            return mean_and_deviation(found, "{:.2f}")

        return cell


def paired_differences(
    entries: Sequence[Entry], baseline: Sequence[Entry], score: str
) -> list[dict[int, float]]:
    """Return the differences by prompt's row, for each seed that both have."""
    theirs = {entry.seed: _by_row(entry, score) for entry in baseline}
    found = []
    for entry in entries:
        mine, other = _by_row(entry, score), theirs.get(entry.seed, {})
        if common := [row for row in mine if row in other]:
            found.append({row: mine[row] - other[row] for row in common})
    return found


def interval_cell(values: Sequence[Mapping[int, float]], form: str) -> str:
    """Write a mean with its interval, in bold where it excludes 0; a dash for nothing."""
    if not values:
        return "-"
    mean, low, high = bootstrap(values)
    text = f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def mean_and_deviation(values: Iterable[float], form: str) -> str:
    """Write a mean and, of two values or more, their standard deviation; a dash for nothing."""
    values = list(values)
    if not values:
        return "-"
    mean = form.format(fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {form.format(stdev(values))}"


EXPLANATION = {
    "scores": "Mean ± standard deviation over seeds. Sampled: temperature 1, the mean of several "
    "responses a prompt.",
    "differences": "Mean over seeds and prompts, [95 % interval], bold where it excludes 0. "
    f"Crossed bootstrap, {DRAWS:,} draws: seeds, and prompts, the same for all seeds; paired by "
    "seed and prompt.",
    "costs": "Gains are of sampled Rouge-L over the warm start. The wall clock of a seed's first "
    "run includes making the models.",
    "by_length": "By words of the gold response; mean ± standard deviation over seeds.",
    "course": f"Over training, of means over {WINDOW} steps; divergence of the first response "
    "token, implicit reward of the teacher's response. Rewards of methods with different beta are "
    "not on one scale.",
}


def _by_row(entry: Entry, score: str) -> dict[int, float]:
    values = {prompt.row: getattr(prompt, score) for prompt in entry.prompts}
    return {row: value for row, value in values.items() if value is not None}


def _minutes(entry: Entry) -> float | None:
    seconds = entry.curves.get("seconds")
    return None if seconds is None else float(seconds.sum()) / 60


def _teacher_millions(entry: Entry) -> float | None:
    tokens = entry.scores.get("teacher_tokens")
    return tokens / 1e6 if tokens else None  # a method may do without a teacher
