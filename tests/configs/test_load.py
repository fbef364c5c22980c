"""A mistake in a config is answered by one line; a good config survives the way to YAML.

More mistakes, with the whole line, are in ``tests/orchestration/malformed_configs.py``.
"""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.data import Columns, DataConfig
from configs.errors import ConfigError
from configs.learner import LearnerConfig
from configs.load import dump, load, recipe_names
from configs.models import MakeModel, WarmStart
from configs.objective import DpkdConfig, SftConfig
from configs.objectives.divergence import GkdConfig
from configs.run import RunConfig
from configs.student import StudentConfig
from configs.teacher import TeacherConfig
from configs.yaml_text import parse_yaml, write_yaml

RECIPE = """
name: small
student: {make: {layers: 2}, warm_start: {steps: 5}}
teacher: {make: {}, warm_start: {}}
objective: {type: dpkd, beta: 2.0, lm_weight: 0.5}
"""


def recipe(folder: Path, text: str = RECIPE) -> str:
    path = folder / "small.yaml"
    path.write_text(text)
    return str(path)


def complaint(folder: Path, *overrides: str, text: str = RECIPE) -> str:
    with pytest.raises(ConfigError) as caught:
        load(recipe(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert "pydantic" not in message and "http" not in message
    return message


def test_a_recipe_and_typed_overrides_make_a_config(tmp_path: Path) -> None:
    config = load(
        recipe(tmp_path),
        ["learner.learning_rate=1e-4", "learner.adam_betas=[0.8, 0.9]", "student.revision=0123"],
    )
    assert config.learner.learning_rate == 1e-4
    assert config.learner.adam_betas == (0.8, 0.9)
    assert config.student.revision == "0123"
    assert config.student.make == MakeModel(layers=2)


def test_the_last_of_two_overrides_counts(tmp_path: Path) -> None:
    assert load(recipe(tmp_path), ["seed=1", "seed=2"]).seed == 2


def test_an_override_reaches_below_a_section_that_the_recipe_leaves_null(tmp_path: Path) -> None:
    text = RECIPE.replace("make: {layers: 2}, warm_start: {steps: 5}", "make: null")
    config = load(recipe(tmp_path, text), ["student.make.layers=7", "student.warm_start.steps=3"])
    assert config.student.make == MakeModel(layers=7)
    assert config.student.warm_start == WarmStart(steps=3)


def test_a_template_with_braces_is_text(tmp_path: Path) -> None:
    assert load(recipe(tmp_path), ["data.template={question}"]).data.template == "{question}"
    quoted = load(recipe(tmp_path), ['data.template="{question}\\n"'])
    assert quoted.data.template == "{question}\n"
    assert load(recipe(tmp_path), ["data.template=null"]).data.template is None


def test_another_objective_type_keeps_only_the_common_keys_of_the_recipe(tmp_path: Path) -> None:
    config = load(recipe(tmp_path), ["objective.type=sft"])
    assert config.objective == SftConfig(lm_weight=0.5)


def test_a_recipe_extends_another_section_by_section(tmp_path: Path) -> None:
    recipe(tmp_path)
    (tmp_path / "upper.yaml").write_text(
        "extends: small.yaml\nname: upper\nstudent: {make: {heads: 2}}\n"
        "objective: {type: gkd, on_policy_share: 1.0}\n"
    )
    config = load(str(tmp_path / "upper.yaml"), ["seed=3"])
    assert config.name == "upper"
    assert config.student.make == MakeModel(layers=2, heads=2)
    # DPKD's beta means something else: only what every objective has is kept.
    assert config.objective == GkdConfig(on_policy_share=1.0, lm_weight=0.5)


def test_a_recipe_that_extends_itself_or_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load(str(tmp_path / "a.yaml"))
    (tmp_path / "roundabout.yaml").write_text(f"extends: ../{tmp_path.name}/roundabout.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load(str(tmp_path / "roundabout.yaml"))
    (tmp_path / "c.yaml").write_text("extends: quickstrat\n")
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load(str(tmp_path / "c.yaml"))


def test_a_union_without_a_type_is_the_default_one(tmp_path: Path) -> None:
    text = RECIPE.replace("type: dpkd, ", "")
    assert load(recipe(tmp_path, text)).objective == DpkdConfig(beta=2.0, lm_weight=0.5)


def test_free_keys_of_custom_resources_are_taken(tmp_path: Path) -> None:
    config = load(recipe(tmp_path), ["cluster.sampler.custom.fast_disk=1"])
    assert config.cluster.sampler.custom == {"fast_disk": 1.0}


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = load(
        recipe(tmp_path),
        [
            "data.train=~/d.jsonl",
            "teacher.model=~/t",
            "teacher.make=null",
            "student.model=~/s",
            "student.make=null",
        ],
    )
    assert config.cache == Path("/home/ada/.cache/dpkd")
    assert config.data.train == Path("/home/ada/d.jsonl")
    assert (config.teacher.model, config.student.model) == ("/home/ada/t", "/home/ada/s")


@pytest.mark.parametrize(
    ("override", "wrong", "nearest"),
    [
        ("lerner.steps=3", "lerner.steps", "learner.steps"),
        ("learning_rate=1", "learning_rate", "learner.learning_rate"),
        ("objective.betta=2", "objective.betta", "objective.beta"),
        ("student.make.layrs=2", "student.make.layrs", "student.make.layers"),
        ("teacher.sampling.temprature=1", "temprature", "teacher.sampling.temperature"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(
    tmp_path: Path, override: str, wrong: str, nearest: str
) -> None:
    message = complaint(tmp_path, override)
    assert f"{wrong}'" in message
    assert message.endswith(f"the nearest known key is '{nearest}'")


def test_an_unknown_key_in_a_recipe_names_the_file(tmp_path: Path) -> None:
    message = complaint(tmp_path, text=RECIPE + "learner: {setps: 3}\n")
    assert "learner.setps" in message
    assert "small.yaml" in message
    assert "learner.steps" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.steps=ten", "learner.steps: a whole number is expected, got 'ten'"),
        ("learner.steps=1.5", "learner.steps: a whole number is expected, got 1.5"),
        ("learner.steps=true", "learner.steps: a number is expected, got true or false"),
        ("learner.steps=null", "learner.steps: a whole number is expected, got null"),
        ("learner.steps=0", "learner.steps: at least 1 is expected, got 0"),
        ("learner=5", "learner: a section with keys of its own is expected, got 5"),
        ("student.make=5", "student.make: a section with keys of its own is expected, got 5"),
        ("learner.dtype=fp16", "learner.dtype: float32 or bfloat16 is expected, got 'fp16'"),
        ("objective.type=dpdk", "objective.type: one of dpkd, ipo, cpo, simpo,"),
        ("objective.beta=-1", "objective.beta: more than 0.0 is expected, got -1"),
        ("learner.adam_betas=[0.9, x]", "learner.adam_betas.1: a number is expected, got 'x'"),
        ("data.train=null", "data.train: a path or embedded is expected, got null"),
        ("teacher.cache=perhaps", "teacher.cache: true or false is expected, got 'perhaps'"),
    ],
)
def test_a_wrong_value_says_key_expectation_and_value(
    tmp_path: Path, override: str, said: str
) -> None:
    message = complaint(tmp_path, override)
    assert message.startswith(said)
    assert override in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("=3", "override '=3' is not key=value"),
        ("data.template=fixed", "names no {column}"),
        ("data.template={a", "unmatched brace"),
        ("data.template={a!r}", "plain {column} fields"),
    ],
)
def test_a_malformed_override_says_what_is_wrong(tmp_path: Path, override: str, said: str) -> None:
    assert said in complaint(tmp_path, override)


def test_contradictory_fields_name_both_keys(tmp_path: Path) -> None:
    message = complaint(tmp_path, "learner.batch_size=7", "learner.ranks=2")
    assert message == "learner.batch_size (7) must be a multiple of learner.ranks (2)"
    assert "student.make.heads (3) must divide" in complaint(tmp_path, "student.make.heads=3")


def test_a_key_of_another_union_member_is_told_apart_from_an_unknown_one(tmp_path: Path) -> None:
    message = complaint(tmp_path, "objective.type=sft", "objective.beta=1")
    assert "does not belong to this objective.type" in message
    message = complaint(tmp_path, "teacher.type=openai", "teacher.make.heads=2")
    assert "does not belong to this teacher.type" in message


def test_a_value_that_is_missing_is_named_without_its_section(tmp_path: Path) -> None:
    message = complaint(tmp_path, "teacher.type=openai")
    assert message.startswith("teacher.model is missing: a value is expected (in ")


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'quikstart'") as caught:
        load("quikstart")
    assert all(name in str(caught.value) for name in recipe_names())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-.5", -0.5),
        ("12:30", "12:30"),
        ("no", "no"),
        ("010", "010"),
        ("2024-11-22", "2024-11-22"),
        ("true", True),
        ("~", None),
        ("", None),
        ("-7", -7),
        (".inf", float("inf")),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_yaml(f"key: {text}")["key"]
    assert parsed == value
    assert type(parsed) is type(value)


TREES = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    max_size=4,
)


@settings(deadline=None)
@given(TREES)
def test_every_plain_tree_survives_writing_and_reading(tree: dict[str, object]) -> None:
    assert parse_yaml(write_yaml(tree)) == tree


CONFIGS = st.builds(
    RunConfig,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
    seed=st.integers(0, 2**32 - 1),
    output=st.sampled_from([Path("runs"), Path("/abs/no"), Path("1e3"), Path("null")]),
    data=st.builds(
        DataConfig,
        train=st.sampled_from(["embedded", Path("a b/ü.jsonl")]),
        template=st.sampled_from([None, "{a}", "{a}\n\n {b}: \t{{x}}\n"]),
        columns=st.builds(Columns, response=st.text(min_size=1, max_size=5)),
    ),
    student=st.just(StudentConfig(make=MakeModel(), warm_start=WarmStart())),
    teacher=st.just(TeacherConfig(make=MakeModel(family="llama"), warm_start=WarmStart())),
    objective=st.builds(DpkdConfig, beta=st.floats(1e-9, 1e9)) | st.builds(SftConfig),
    learner=st.builds(LearnerConfig, learning_rate=st.floats(1e-12, 10.0)),
)


@settings(deadline=None, max_examples=50)
@given(CONFIGS)
def test_a_dumped_config_loads_back_equal(config: RunConfig) -> None:
    text = dump(config)
    assert RunConfig.model_validate(parse_yaml(text)) == config


def test_a_dumped_config_is_a_recipe(tmp_path: Path) -> None:
    config = load(recipe(tmp_path), ["cluster.sampler.custom={disk: 2}", "data.train=1e3.jsonl"])
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"objective": {"type": "sft"}}, "objective.type"),
        ({"objective": {"type": "dpkd", "lm_weight": 0.1}}, "objective.lm_weight"),
        ({"teacher": {"model": "t", "response": "gold"}}, "teacher.response"),
        ({"student": {"model": "s", "warm_start": {"steps": 1}}}, "student.warm_start"),
    ],
)
def test_rows_without_a_response_serve_only_what_never_asks_for_one(
    changes: dict[str, object], key: str
) -> None:
    prompts_only = {
        "student": {"model": "s"},
        "teacher": {"model": "t"},
        "data": {"columns": {"response": None}},
    }
    RunConfig.model_validate(prompts_only)
    with pytest.raises(ValueError, match=f"{re.escape(key)} needs one|{re.escape(key)} without"):
        RunConfig.model_validate({**prompts_only, **changes})


def test_a_made_model_whose_heads_vllm_lacks_is_refused() -> None:
    small = {"make": {"hidden_size": 64, "heads": 4}, "warm_start": {}}
    with pytest.raises(ValueError, match=r"hidden_size / student\.make\.heads is 16"):
        RunConfig.model_validate({"student": small, "teacher": {"model": "t"}})


def test_samplers_coarser_than_the_learner_are_refused() -> None:
    both = {"teacher": {"model": "t"}, "learner": {"dtype": "float32"}}
    with pytest.raises(ValueError, match=r"student\.dtype=bfloat16 with learner\.dtype=float32"):
        RunConfig.model_validate({**both, "student": {"model": "s", "dtype": "bfloat16"}})
