"""A comparison, as its plan declares it: methods times seeds, at equal budgets."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from configs.base import Section
from configs.grid import Axis, GridPoint, expand

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MethodName = Annotated[str, StringConstraints(pattern=NAME)]
RESERVED = ("teacher", "warm start")
"""Table rows that are no method's: neither its name nor its label."""


class MethodConfig(Section):
    """One method: what it changes in the recipe."""

    overrides: tuple[str, ...] = ()
    """``key=value``, as on the command line of a run."""


class NoiseConfig(Section):
    """Gaussian noise added to the weights of finished students (the paper's Figure 2)."""

    sigmas: tuple[Annotated[float, Field(ge=0)], ...] = Field(min_length=1)
    """Standard deviations of the noise, in standard deviations of each weight tensor."""
    method: str
    """Whose students, one a seed, are made noisy."""


class PlanConfig(Section):
    """Everything that determines a comparison."""

    name: str = Field(default="comparison", pattern=NAME)
    """Names the comparison."""
    recipe: str = "quickstart"
    """Recipe of every run: a name in ``configs/recipes``, or a path."""
    overrides: tuple[str, ...] = ()
    """``key=value`` for every run; a method's own come after these."""
    methods: dict[MethodName, MethodConfig] = Field(default_factory=dict)
    """The methods by name, in the order of the tables."""
    grid: dict[str, Axis] = Field(default_factory=dict)
    """Further methods, one for every combination: a key with its values, or a word of your own
    with named points and the overrides of each."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What tables and plots call a method, where that is not its name."""
    baseline: str | None = None
    """The method that the others' differences are taken to; None: no differences."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    """Every method runs once on each."""
    dataset: str | None = None
    """What tables call the data; None: the plan's name."""
    share_teacher: bool = True
    """One made teacher for all seeds, the first run's; False: each seed makes its own."""
    equal_budget: bool = True
    """Refuse methods that differ in steps, pairs a step, data, evaluation or warm start."""
    parallel: int = Field(default=1, ge=1)
    """Runs at one time, each a process of its own."""
    local: bool = True
    """Run without Ray (``cluster.local``), with one thread unless OMP_NUM_THREADS says more."""
    output: Path | None = None
    """Folder of runs, logs, tables and plots; None: ``runs/<name>``."""
    length_cuts: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1)
    """Bounds of the length buckets in words of the gold response, ascending, each the first
    length of a bucket; None: median and mean of the gold lengths."""
    noise: NoiseConfig | None = None
    """Make finished students noisy and evaluate them; None: do not."""

    @property
    def points(self) -> list[GridPoint]:
        """Every method: the named ones, then the grid's."""
        named = [
            GridPoint(name, self.labels.get(name, name), method.overrides)
            for name, method in self.methods.items()
        ]
        return named + [
            point._replace(label=self.labels.get(point.name, point.label))
            for point in expand(self.grid)
        ]

    @property
    def folder(self) -> Path:
        """Where everything goes, as the plan gives it."""
        return self.output or Path("runs") / self.name

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        points = self.points
        names = [point.name for point in points]
        if not names:
            raise ValueError("the plan has no method: name some under methods, or give a grid")
        _refuse_twice("method", names)
        _refuse_twice("label", [point.label for point in points])
        _refuse_twice("seed", self.seeds)
        for point in points:
            if reserved := {point.name, point.label}.intersection(RESERVED):
                raise ValueError(
                    f"method {point.name} cannot be called {reserved.pop()!r}: tables have such a "
                    "row already"
                )
        for key, name in self._mentioned():
            if name not in names:
                raise ValueError(f"{key}: {_no_method(name, names)}")
        if self.length_cuts and sorted(set(self.length_cuts)) != list(self.length_cuts):
            raise ValueError(f"length_cuts must ascend, got {list(self.length_cuts)}")
        return self

    def _mentioned(self) -> list[tuple[str, str]]:
        """Return the names that should be methods, and the keys that mention them."""
        found = [("labels", name) for name in self.labels]
        found += [("baseline", self.baseline)] if self.baseline is not None else []
        return found + ([("noise.method", self.noise.method)] if self.noise else [])


def _refuse_twice(what: str, names: Iterable[object]) -> None:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} occurs twice in the plan: give each its own")
        seen.add(name)


def _no_method(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{name!r} is none of the plan's methods ({', '.join(names)}){hint}"
