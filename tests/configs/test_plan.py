"""Plans as users write them: what a right one comes to, and what a wrong one is told."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.grid import expand
from configs.load_plan import load_plan, plan_names


def _load(folder: Path, text: str):
    path = folder / "plan.yaml"
    path.write_text(text)
    return load_plan(str(path))


def _complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(folder, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"plan {folder / 'plan.yaml'}")
    return message


def test_methods_come_in_their_order_then_the_grids(tmp_path):
    plan = _load(tmp_path, "methods: {b: , a: {overrides: [x=1]}}\ngrid: {learner.steps: [5, 7]}\n")
    assert [(p.name, p.overrides) for p in plan.points] == [
        ("b", ()),
        ("a", ("x=1",)),
        ("steps_5", ("learner.steps=5",)),
        ("steps_7", ("learner.steps=7",)),
    ]


def test_labels_take_the_place_of_names_in_tables(tmp_path):
    plan = _load(tmp_path, "methods: {a: }\ngrid: {learner.steps: [5]}\nlabels: {steps_5: few}\n")
    assert [point.label for point in plan.points] == ["a", "few"]


def test_a_grid_is_every_combination_with_a_name_for_folders_and_one_for_readers():
    points = expand({"replay.max_policy_lag": (0, 2), "objective.lm_weight": (0, 0.5)})
    assert len(points) == 4
    assert points[3].name == "max_policy_lag_2-lm_weight_0.5"
    assert points[3].label == "max_policy_lag 2, lm_weight 0.5"
    assert points[3].overrides == ("replay.max_policy_lag=2", "objective.lm_weight=0.5")


def test_a_grids_points_may_be_named_and_set_several_keys():
    frozen = ("negatives.type=initial", "objective.beta=3")
    points = expand({"lag": {"0": (), "frozen": frozen}})
    assert [(p.name, p.overrides) for p in points] == [("lag_0", ()), ("lag_frozen", frozen)]


def test_keys_with_one_last_part_keep_what_tells_them_apart():
    keys = ("student.sampling.temperature", "teacher.sampling.temperature")
    [point] = expand(dict.fromkeys(keys, (1,)))
    assert point.name == "student.sampling.temperature_1-teacher.sampling.temperature_1"


def test_values_are_written_as_yaml_has_them():
    points = expand({"a.b": (True, None, 1e-05, "x y")})
    assert [p.overrides[0] for p in points] == ["a.b=true", "a.b=null", "a.b=1e-05", "a.b=x y"]
    assert points[3].name == "b_x-y"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\n", "the plan has no method"),
        ("metods: {a: }\n", "unknown key 'metods': the nearest known key is 'methods'"),
        ("methods: {a: {overridez: []}}\n", "unknown key 'methods.a.overridez'"),
        ("methods: {a: {overrides: x=1}}\n", "methods.a.overrides: a list is expected"),
        ("methods: {a: 3}\n", "methods.a: a section with the key overrides is expected, got 3"),
        ("methods: {a b: }\n", "text that matches"),
        ("methods: {a: , a: }\n", "key 'a' occurs twice"),
        ("methods: {steps_5: }\ngrid: {learner.steps: [5]}\n", "method 'steps_5' occurs twice"),
        ("grid: {a.b: ['x y', x-y]}\n", "two of its combinations are called b_x-y"),
        ("grid: {learner.steps: []}\n", "grid.learner.steps: at least one value"),
        ("methods: {a: , seqkd: }\nbaseline: sekd\n", "did you mean 'seqkd'?"),
        ("methods: {a: }\nseeds: [1, 2, 1]\n", "seed 1 occurs twice"),
        ("methods: {a: }\nseeds: []\n", "seeds: at least 1 values is expected"),
        ("methods: {a: , b: }\nlabels: {a: b}\n", "label 'b' occurs twice"),
        ("methods: {a: }\nlabels: {b: B}\n", "labels: 'b' is none of the plan's methods (a)"),
        ("methods: {teacher: }\n", "method teacher cannot be called 'teacher'"),
        ("methods: {a: }\nlabels: {a: teacher}\n", "method a cannot be called 'teacher'"),
        ("methods: {a: }\nlabels: {a: warm start}\n", "method a cannot be called 'warm start'"),
        ("grid: {lag: [1, 2]}\n", "name and overrides each: lag: {1: [section.key=value]}"),
        ("methods: {a: }\nlength_cuts: [9, 3]\n", "length_cuts must ascend"),
        ("methods: {a: }\nnoise: {sigmas: [0.1], method: b}\n", "noise.method: 'b' is none of"),
        ("methods: {a: }\nparallel: 0\n", "parallel: at least 1 is expected, got 0"),
        ("methods: [\n", "line 2: not valid YAML"),
    ],
)
def test_a_wrong_plan_gets_one_sentence(tmp_path, text, said):
    assert said in _complaint(tmp_path, text)


def test_a_plan_that_does_not_exist_is_answered_with_those_that_do(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_plan(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="did you mean 'e2e_methods'"):
        load_plan("e2e_method")


@pytest.mark.parametrize("name", plan_names())
def test_a_plan_of_the_project_is_named_as_its_file_and_says_what_it_is(name):
    plan = load_plan(name)
    assert plan.name == name
    assert (Path(__file__).parents[2] / f"configs/plans/{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", [name for name in plan_names() if name.startswith("e2e")])
def test_a_published_plan_names_its_temperatures_whatever_its_recipe_comes_to_say(name):
    named = {override.partition("=")[0] for override in load_plan(name).overrides}
    assert {"teacher.sampling.temperature", "student.sampling.temperature"} <= named
