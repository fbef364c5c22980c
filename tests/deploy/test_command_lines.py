"""What documents tell to type is taken by the commands, their options and keys included."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load, recipe_names
from configs.load_plan import load_plan
from tests.deploy.command_lines import command_of, parsed, told_to_type

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "deploy/README.md", "docs/nothing-lost.md", "docs/scaling.md")
TAKE_RECIPES = ("orchestration.run", "orchestration.doctor", "orchestration.plan")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_is_taken_by_its_parser(document, tmp_path):
    """`my.yaml` stands for a recipe of the reader's own."""
    mine = tmp_path / "my.yaml"
    mine.write_text("{student: {model: s}, teacher: {model: t}, data: {train: mine.jsonl}}\n")
    commands = list(told_to_type(ROOT / document))
    assert len(commands) >= 2
    for module, words in commands:
        taken = parsed(module, words)
        if module in TAKE_RECIPES:
            _, recipe, overrides = taken
            assert recipe in (None, "my.yaml", "RECIPE", *recipe_names()), words
            load(recipe if recipe in recipe_names() else str(mine), overrides)
        if module == "orchestration.compare":
            load_plan(taken.plan)


@pytest.mark.parametrize(
    "line",
    [
        "python -m orchestration.run my.yaml --dryrun",
        "python -m orchestration.run my.yaml another.yaml=",
        "python -m orchestration.scale /data/runs/gpu",
        "python -m orchestration.scale /data/runs/gpu eight",
        "python -m orchestration.verify",
    ],
)
def test_a_command_that_is_mistyped_is_not(line):
    with pytest.raises(ConfigError):
        _, recipe, overrides = parsed(*command_of(line))
        load("quickstart" if recipe else None, overrides)
