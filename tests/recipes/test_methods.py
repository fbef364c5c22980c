"""Every objective has a recipe, and every such recipe runs through the real pipeline."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from configs.load import RECIPES, load, recipe_names
from configs.objective import ObjectiveConfig
from tests.e2e.tiny import ROOT

METHODS = [
    name
    for name in recipe_names()
    if "\nextends: quickstart\n" in (RECIPES / f"{name}.yaml").read_text()
]
TEXT_ONLY = {"cpo", "simpo", "plad", "ddpo", "seqkd"}
ON_STUDENT = {
    *("dpkd", "dpkd_eq8", "ipo", "cpo", "simpo", "plad", "dadpo", "ddpo"),
    *("reverse_kl", "gkd", "minillm", "opd"),
}


def test_every_objective_has_a_recipe():
    union, _ = get_args(ObjectiveConfig)
    known = {get_args(member.model_fields["type"].annotation)[0] for member in get_args(union)}
    assert {load(name).objective.type for name in METHODS} == known


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which every recipe ran."""
    home = tmp_path_factory.mktemp("methods")
    command = [sys.executable, "-m", "tests.recipes.in_one_process", str(home), *METHODS]
    log = (home / "log").open("w")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        command, cwd=ROOT, stdout=log, stderr=log, env=environment, timeout=900, check=True
    )
    return home


def _summary(home: Path, recipe: str) -> dict[str, Any]:
    error = home / f"{recipe}.error"
    assert not error.exists(), error.read_text()
    return json.loads((home / "runs" / recipe / "summary.json").read_text())


@pytest.mark.engine
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("recipe", METHODS)
def test_a_method_runs_through_the_real_pipeline(recipe: str, finished: Path):
    summary = _summary(finished, recipe)
    assert summary["steps"] == 3
    assert summary["ledger"] | {"dropped": {}} == {
        "issued": 24,
        "consumed": 24,
        "in_flight": 0,
        "dropped": {},
    }
    assert all(math.isfinite(loss) for loss in summary["losses"])
    assert len(set(summary["losses"])) == 3
    after = summary["eval"]["after"]
    assert {"rouge_l", "greedy_rouge_l", "exact_match", "nll_nats", "reverse_kl_nats"} <= set(after)
    assert after["nll_nats"] != summary["eval"]["before"]["nll_nats"]


@pytest.mark.engine
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("recipe", METHODS)
def test_only_what_a_method_needs_has_run(recipe: str, finished: Path):
    _summary(finished, recipe)
    lines = (finished / "runs" / recipe / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    measured = {key for line in steps for key in line}
    assert ("response_length_student" in measured) == (recipe in ON_STUDENT)
    assert ("reverse_kl_k1" in measured) == (recipe in ON_STUDENT - TEXT_ONLY)
