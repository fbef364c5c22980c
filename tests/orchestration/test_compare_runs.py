"""From a plan to runs, which of them are done, and what is refused before any starts."""

import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load_plan import load_plan, plan_names
from orchestration.compare import main
from orchestration.comparison_progress import Progress
from orchestration.comparison_runs import planned_runs
from tests.orchestration.comparison_builders import METHODS, TEACHER, finish, plan


def _names(runs) -> list[str]:
    return [run.name for run in runs]


def test_runs_go_seed_by_seed_in_the_plans_order(tmp_path):
    runs = planned_runs(plan(tmp_path, seeds=[3, 1]))
    assert _names(runs) == ["dpkd-seed3", "sft-seed3", "dpkd-seed1", "sft-seed1"]


def test_a_run_is_a_local_command_of_its_own(tmp_path):
    run = planned_runs(plan(tmp_path, overrides=["learner.steps=7"]))[0]
    assert run.command()[1:4] == ["-m", "orchestration.run", "quickstart"]
    config = run.config()
    assert (config.name, config.seed, config.learner.steps) == ("dpkd-seed0", 0, 7)
    assert config.output == tmp_path / "small" / "runs"
    assert (config.existing, config.monitoring.port, config.cluster.local) == ("replace", 0, True)
    assert getattr(config.objective, "beta", None) == 3


def test_a_method_has_the_last_word_over_the_plan_and_the_plan_over_its_defaults(tmp_path):
    methods = {"a": {"overrides": ["objective.type=dpkd", "objective.beta=3"]}}
    overrides = ["objective.type=dpkd", "objective.beta=2", "cluster.local=false"]
    run = planned_runs(plan(tmp_path, methods=methods, baseline="a", overrides=overrides))[0]
    assert getattr(run.config().objective, "beta", None) == 3
    assert not run.config().cluster.local


def test_only_the_first_method_of_a_seed_evaluates_the_teacher(tmp_path):
    runs = planned_runs(plan(tmp_path))
    assert [run.config().evaluation.teacher for run in runs] == [True, False, True, False]


def test_a_shared_teacher_is_handed_to_a_run_as_a_folder(tmp_path):
    run = planned_runs(plan(tmp_path))[2]
    keys = {"model", "make", "warm_start"}
    assert run.config(TEACHER).teacher.model_dump(include=keys) == {
        "model": TEACHER,
        "make": None,
        "warm_start": None,
    }
    assert run.config().teacher.model is None


def test_without_sharing_every_seed_makes_its_own_teacher(tmp_path):
    run = planned_runs(plan(tmp_path, share_teacher=False))[2]
    assert run.command(TEACHER) == run.command()


def test_nothing_is_done_at_first(tmp_path):
    assert Progress(planned_runs(plan(tmp_path))).done() == []


def test_a_success_with_the_same_configuration_is_done(tmp_path):
    runs = planned_runs(plan(tmp_path))
    finish(runs[0], 50.0, 60.0)
    finish(runs[1], 40.0, 50.0, teacher=TEACHER)
    assert Progress(runs).teacher() == TEACHER
    assert _names(Progress(runs).done()) == ["dpkd-seed0", "sft-seed0"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", None),
        ("summary.json", '{"eval": {'),
        ("summary.json", "[]"),
        ("summary.json", '{"wall_seconds": 1}'),
        ("status.json", "{}"),
        ("status.json", "[]"),
    ],
)
def test_a_success_that_cannot_be_read_is_not_done(tmp_path, name, text):
    runs = planned_runs(plan(tmp_path, seeds=[0]))
    finish(runs[0], 50.0, 60.0)
    finish(runs[1], 40.0, 50.0, teacher=TEACHER)
    path = runs[1].folder / name
    path.unlink() if text is None else path.write_text(text)
    assert _names(Progress(runs).done()) == ["dpkd-seed0"]
    assert main([_write(tmp_path), "--table"]) == 0
    assert "sft-seed0" in (tmp_path / "small" / "table.md").read_text()


@pytest.mark.parametrize("state", ["failed", "stopped", "running"])
def test_a_run_that_did_not_succeed_is_not_done(tmp_path, state):
    runs = planned_runs(plan(tmp_path))
    finish(runs[0], 50.0, 60.0, state=state)
    assert Progress(runs).done() == []


def test_a_run_of_another_configuration_is_not_done(tmp_path):
    for run in (runs := planned_runs(plan(tmp_path))):
        finish(run, 50.0, 60.0, teacher=TEACHER if run is not runs[0] else None)
    assert len(Progress(runs).done()) == 4
    changed = {**METHODS, "sft": {"overrides": ["objective.type=sft", "objective.lm_weight=0.1"]}}
    again = planned_runs(plan(tmp_path, methods=changed))
    assert _names(Progress(again).done()) == ["dpkd-seed0", "dpkd-seed1"]


def test_where_a_run_shows_itself_and_keeps_its_models_does_not_count(tmp_path):
    runs = planned_runs(plan(tmp_path))
    finish(runs[0], 50.0, 60.0)
    elsewhere = ["cache=/elsewhere", "monitoring.log_every=1"]
    assert _names(Progress(planned_runs(plan(tmp_path, overrides=elsewhere))).done()) == [
        "dpkd-seed0"
    ]


def test_another_teacher_recipe_makes_every_run_that_was_handed_the_old_one_undone(tmp_path):
    for run in (runs := planned_runs(plan(tmp_path))):
        finish(run, 50.0, 60.0, teacher=TEACHER if run is not runs[0] else None)
    again = planned_runs(plan(tmp_path, overrides=["teacher.warm_start.steps=9"]))
    assert Progress(again).teacher() is None
    assert Progress(again).done() == []


def test_a_run_that_stood_in_as_maker_of_the_teacher_stays_done(tmp_path):
    runs = planned_runs(plan(tmp_path))
    finish(runs[1], 40.0, 50.0)  # made the teacher after runs[0] had failed
    finish(runs[0], 50.0, 60.0, teacher=TEACHER)
    assert _names(Progress(runs).done()) == ["dpkd-seed0", "sft-seed0"]


def test_a_seeds_own_teacher_does_not_pass_for_the_shared_one(tmp_path):
    apart = planned_runs(plan(tmp_path, share_teacher=False))
    for run in apart:
        models = {"student": "s", "teacher": f"/cache/teacher-{run.seed}"}
        finish(run, 50.0, 60.0, models=models)
    runs = planned_runs(plan(tmp_path))
    assert _names(Progress(runs).done()) == ["dpkd-seed0", "sft-seed0"]


def _refused(home: Path, **changes) -> str:
    with pytest.raises(ConfigError) as caught:
        planned_runs(plan(home, **changes))
    return str(caught.value)


def _sft_with(override: str) -> dict:
    return {**METHODS, "sft": {"overrides": ["objective.type=sft", override]}}


def test_an_unknown_key_of_a_method_names_the_method(tmp_path):
    message = _refused(tmp_path, methods=_sft_with("learner.stepz=3"))
    assert message.startswith("method sft: unknown key 'learner.stepz'")


def test_a_missing_recipe_is_the_plans(tmp_path):
    message = _refused(tmp_path, recipe="quickstrat")
    assert message.startswith("recipe: unknown recipe 'quickstrat'")


def test_an_unknown_key_of_the_plan_is_not_blamed_on_a_method(tmp_path):
    message = _refused(tmp_path, overrides=["learner.stepz=3"])
    assert message.startswith("overrides: unknown key 'learner.stepz'")


def test_an_override_that_contradicts_a_method_is_the_methods(tmp_path):
    given = {"overrides": ["negatives.type=initial"], "methods": _sft_with("negatives.every=3")}
    assert _refused(tmp_path, **given).startswith("method sft: negatives.every has no meaning")


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"overrides": ["learner.steps"]}, "overrides"),
        ({"methods": {"sft": {"overrides": ["learner.steps"]}}}, "method sft"),
    ],
)
def test_an_override_without_a_value_says_whose_it_is(tmp_path, changes, where):
    message = _refused(tmp_path, **changes)
    assert message.startswith(f"{where}: override 'learner.steps' is not key=value")


@pytest.mark.parametrize("override", ["seed=3", "name=x", "output=y", "existing=keep"])
def test_keys_that_the_plan_sets_itself_are_refused(tmp_path, override):
    assert "is not the plan's to set" in _refused(tmp_path, methods=_sft_with(override))
    assert "is not the plan's to set" in _refused(tmp_path, overrides=[override])


@pytest.mark.parametrize(
    "override",
    [
        "learner.steps=99",
        "learner.batch_size=8",
        "student.warm_start.steps=9",
        "data.template={context}",
    ],
)
def test_a_method_that_changes_the_budget_is_refused(tmp_path, override):
    message = _refused(tmp_path, methods=_sft_with(override))
    assert message.startswith(f"method sft has {override.split('=')[0].removesuffix('.steps')}")
    assert "equal_budget: false" in message


def test_unequal_budgets_may_be_allowed(tmp_path):
    methods = _sft_with("learner.steps=99")
    runs = planned_runs(plan(tmp_path, methods=methods, equal_budget=False))
    assert [run.config().learner.steps for run in runs[:2]] == [150, 99]


@pytest.mark.parametrize("name", plan_names())
def test_every_plan_of_the_project_comes_to_runs(name):
    points = load_plan(name).points
    runs = planned_runs(load_plan(name))
    assert len(runs) == len(points) * len(load_plan(name).seeds)


def _write(home: Path, **changes) -> str:
    text = {"name": "small", "methods": METHODS, "seeds": [0], "output": str(home / "small")}
    text |= changes
    path = home / "plan.yaml"
    path.write_text(json.dumps(text))
    return str(path)


def test_a_dry_run_lists_what_is_done_and_writes_nothing(tmp_path, capsys):
    finish(planned_runs(plan(tmp_path))[0], 50.0, 60.0)
    before = sorted(tmp_path.rglob("*"))
    path = _write(tmp_path)
    assert main([path, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("done    dpkd-seed0  objective.type=dpkd")
    assert lines[1].startswith("to run  sft-seed0")
    assert lines[2] == "2 runs, 1 of them done"
    assert sorted(tmp_path.rglob("*")) == sorted([*before, Path(path)])


def test_a_table_of_nothing_leaves_the_finished_ones_and_names_what_differs(tmp_path, capsys):
    for run in (runs := planned_runs(plan(tmp_path, seeds=[0]))):
        finish(run, 50.0, 60.0, teacher=TEACHER if run is not runs[0] else None)
    assert main([_write(tmp_path), "--table"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    path = _write(tmp_path, overrides=["learner.steps=151", "learner.learning_rate=0.1"])
    assert main([path, "--table"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "dpkd-seed0 there was made with learner.steps=150, the plan says 151" in line
    assert str(tmp_path / "small") in line
    changed = {path for path, data in before.items() if path.read_bytes() != data}
    assert changed == {Path(path)}


def test_a_table_of_nothing_makes_no_folder(tmp_path, capsys):
    assert main([_write(tmp_path), "--table"]) == 2
    assert "no run there has succeeded" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_plan_whose_runs_all_fail_leaves_the_tables_as_they_were(tmp_path, capsys, monkeypatch):
    async def all_fail(*_) -> int:
        return 1

    monkeypatch.setattr("orchestration.compare._run", all_fail)
    path = _write(tmp_path)
    table = tmp_path / "small" / "results.csv"
    table.parent.mkdir()
    table.write_text("of old\n")
    assert main([path]) == 1
    assert "no run is done: tables and plots are left as they were" in capsys.readouterr().out
    assert [each.name for each in table.parent.iterdir() if each.is_file()] == ["results.csv"]
    assert table.read_text() == "of old\n"


def test_runs_that_were_handed_a_teacher_that_is_gone_name_its_maker(tmp_path, capsys):
    runs = planned_runs(plan(tmp_path, seeds=[0]))
    finish(runs[1], 50.0, 60.0, teacher=TEACHER)
    assert main([_write(tmp_path), "--table"]) == 2
    assert f"sft-seed0 there was handed the teacher {TEACHER}" in capsys.readouterr().err


def test_a_wrong_override_is_answered_with_the_plans_file(tmp_path, capsys):
    path = _write(tmp_path, overrides=["learner.steps"])
    assert main([path]) == 2
    assert capsys.readouterr().err.startswith(f"error: plan {path}: overrides: override ")


def test_a_wrong_plan_ends_the_command_with_one_line_and_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: plan file ")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    path = tmp_path / "plan.yaml"
    path.write_text(f"output: {tmp_path}/file/below\nmethods: {{one: }}\n")
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the folder ") and "set the plan's output" in error
