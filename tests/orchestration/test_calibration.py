"""Which runs a calibration makes: all are checked before the first."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import dump, load
from orchestration import calibration
from orchestration.calibration import allowed, calibrate, calibrations


def kinds_of(*overrides: str) -> tuple[list[str], list[str]]:
    said: list[str] = []
    found = allowed(calibrations(load("quickstart", overrides)), said.append)
    return list(found), said


def test_a_recipe_without_bounds_is_calibrated_in_four_ways():
    assert kinds_of() == (["whole", "half", "overlapped", "abreast"], [])


def test_what_local_and_deterministic_recipes_rule_out_is_left_out_and_said():
    kinds, said = kinds_of("cluster.local=true")
    assert kinds == ["whole", "half", "overlapped"]
    assert len(said) == 1 and "two samplers" in said[0] and "cluster.local" in said[0]
    kinds, said = kinds_of("deterministic=true")
    assert kinds == ["whole", "half"]
    assert "deterministic needs replay.max_policy_lag=0" in said[0]
    assert "counted as 0" in said[-1], "nobody works beside another"


@pytest.mark.parametrize("override", ["cluster.local=true", "deterministic=true", "seed=3"])
def test_every_run_that_is_made_is_one_that_a_run_accepts(override, tmp_path):
    found = allowed(calibrations(load("quickstart", [override])), lambda _: None)
    assert "whole" in found
    for kind, config in found.items():
        path = tmp_path / f"{kind}.yaml"
        path.write_text(dump(config))
        assert dump(load(str(path))) == dump(config)


def test_a_recipe_that_cannot_be_calibrated_is_refused_before_the_first_run(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("a run was made")

    monkeypatch.setattr(calibration, "run_quietly", never)
    config = load("quickstart")
    broken = config.model_copy(
        update={"replay": config.replay.model_copy(update={"max_tuples": 1})}
    )
    with pytest.raises(ConfigError, match=r"cannot be calibrated: replay\.max_tuples"):
        calibrate(broken, Path(), lambda _: None, cores=2, rounds=1)


def test_it_says_how_long_it_will_take(monkeypatch, tmp_path):
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(calibration, "monotonic", lambda: next(clock))
    monkeypatch.setattr(calibration, "measure", lambda *_: None)
    monkeypatch.setattr(calibration, "fit", lambda kinds, seen, **_: seen)
    said: list[str] = []
    seen = calibrate(load("quickstart"), tmp_path, said.append, cores=2, rounds=2)
    assert {kind: len(runs) for kind, runs in seen.items()} == dict.fromkeys(  # type: ignore[attr-defined]
        ("whole", "half", "overlapped", "abreast"), 2
    )
    assert said[0] == "calibration 1 of 8: 30 steps, one sampler, in lockstep, 32 prompts a call"
    assert said[1].endswith("16 prompts a call; about 3.5 min left")
    assert said[7].endswith("; about 0.5 min left")


def test_a_calibration_goes_on_from_no_checkpoint():
    config = load("quickstart", ["resume=runs/other"])
    assert calibration._bare(config, "whole", Path()).resume == "never"
