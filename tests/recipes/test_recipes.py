"""Every recipe is an executable promise. `quickstart` is run by tests/e2e/test_main_job.py;
`gpt2_dolly` needs a GPU and a hub, and is checked as far as its plan.
"""

import json
from pathlib import Path

import pytest

from configs.load import RECIPES, load, recipe_names
from orchestration.outline import describe
from tests.e2e.tiny import TinyRun

FOODS = ("thai", "greek", "french", "indian")


def _dolly_row(i: int) -> dict[str, str]:
    food = FOODS[i % 4]
    return {
        "instruction": "Describe the place.",
        "context": f"name: number {i} food: {food}",
        "response": f"number {i} serves {food} food.",
    }


def _gsm8k_row(i: int) -> dict[str, str]:
    return {
        "question": f"Ann has {i} apples and buys {i % 7} more. How many has she?",
        "answer": f"Ann has {i} + {i % 7} = {i + i % 7} apples.\n#### {i + i % 7}",
    }


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_is_valid_named_as_its_file_and_has_a_plan(recipe):
    config = load(recipe, [])
    assert config.name == recipe
    assert describe(config).startswith(f"plan: {recipe}")


def test_every_recipe_has_a_comment_that_says_what_it_is():
    for path in sorted(Path(str(RECIPES)).glob("*.yaml")):
        assert path.read_text().startswith("# "), path


def test_gpt2_dolly_is_the_papers_set_up():
    config = load("gpt2_dolly", [])
    assert (config.teacher.model, config.student.model) == ("gpt2-xl", "gpt2")
    assert config.data.min_response_words == 11
    assert config.data.max_prompt_tokens == 256


@pytest.mark.e2e
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("recipe", "row"), [("e2e", _dolly_row), ("gsm8k", _gsm8k_row)])
def test_a_recipe_distils_on_a_file_of_ones_own(tmp_path, recipe, row):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row(i)) + "\n" for i in range(80)))
    small = ("learner.steps=3", "cluster.local=true")
    run = TinyRun(tmp_path, f"data.train={rows}", *small, name="own", recipe=recipe)
    assert run.wait() == 0, run.tail()
    summary = run.json("summary.json")
    assert summary["ledger"]["consumed"] == 24
    assert summary["eval"]["after"]["rouge_l"] >= 0
    assert run.survivors() == []
