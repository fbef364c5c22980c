"""Every recipe is an executable promise. `quickstart` is run by tests/e2e/test_main_job.py;
`gpt2_dolly` needs a GPU and a hub, and is checked as far as its plan.
"""

import json
from pathlib import Path

import pytest

from configs.load import RECIPES, load, recipe_names
from orchestration.plan import describe
from tests.e2e.tiny import TinyRun

FOODS = ("thai", "greek", "french", "indian")


def _write_dolly_rows(path: Path, count: int) -> None:
    rows = [
        {
            "instruction": "Describe the place.",
            "context": f"name: number {i} food: {FOODS[i % 4]}",
            "response": f"number {i} serves {FOODS[i % 4]} food.",
        }
        for i in range(count)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")


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
def test_e2e_distils_on_a_dolly_file_of_ones_own(tmp_path):
    _write_dolly_rows(tmp_path / "rows.jsonl", 80)
    run = TinyRun(
        tmp_path,
        f"data.train={tmp_path / 'rows.jsonl'}",
        "learner.steps=3",
        name="own",
        recipe="e2e",
    )
    assert run.wait() == 0, run.tail()
    summary = run.json("summary.json")
    assert summary["ledger"]["consumed"] == 24
    assert summary["eval"]["after"]["rouge_l"] >= 0
    assert run.survivors() == []
