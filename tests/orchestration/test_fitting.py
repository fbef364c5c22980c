"""Costs that are read off runs: of runs whose costs are known, because they were simulated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.load import load
from configs.run import RunConfig
from orchestration.calibration import calibrations
from orchestration.costs import Costs
from orchestration.fitting import fit
from orchestration.gaps import Call, gap_before, seconds_of
from orchestration.measured_run import Measured
from orchestration.simulation import simulate

CORES = 2
TRUE = Costs.from_dict(
    {
        "generate": [0.2, 0.025],
        "judge": [0.1, 0.02],
        "respond": [0.01, 0.001],
        "learn": 0.01,
        "publish": 0.01,
        "probe": 0.006,
        "load": 0.04,
        "latency": {
            "generate": [0.004, 0.0002],
            "respond": [0.004, 0.0002],
            "judge": [0.002, 0.0001],
            "forward_backward": [0.007, 0.0002],
            "optim_step": 0.0015,
            "publish_weights": 0.002,
            "probe": 0.001,
            "load_weights": 0.003,
        },
        "driver": 0.001,
        "step": 0.004,
        "queue": 0.001,
        "crowding": 0.12,
        "weight_bytes": 1000,
    }
)
KINDS = calibrations(load("quickstart", []))


def run_of(folder: Path, config: RunConfig, costs: Costs) -> Measured:
    """Return a run as its folder would tell it, had its parts such costs."""
    folder.mkdir(parents=True)
    seen = simulate(config, costs, cores=CORES)
    spans = [
        {
            "ph": "X",
            "cat": "busy",
            "ts": 1e6 * call.start,
            "dur": 1e6 * (call.end - call.start),
            "args": {"method": call.method},
        }
        for call in seen.calls
    ]
    (folder / "timeline.json").write_text(json.dumps(spans))
    lines = [{"step": step, "seconds": seen.step_seconds} for step in range(9)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    driver = seen.driver * seen.step_seconds
    summary = {
        "throughput": {"driver_thread_seconds_per_step": driver},
        "weight_sync": {"bytes": costs.weight_bytes},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return Measured(folder)


def calibration(folder: Path, costs: Costs) -> dict[str, list[Measured]]:
    return {kind: [run_of(folder / kind, config, costs)] for kind, config in KINDS.items()}


def test_costs_are_found_again(tmp_path):
    found = fit(KINDS, calibration(tmp_path, TRUE), cores=CORES)
    for line in ("generate", "judge", "respond", "learn"):
        assert getattr(found, line) == pytest.approx(getattr(TRUE, line), rel=0.1, abs=2e-3), line
    assert found.driver == pytest.approx(TRUE.driver, rel=0.1)
    assert found.step == pytest.approx(TRUE.step, rel=0.1)
    assert found.probe == pytest.approx(TRUE.probe, rel=0.1)
    assert found.crowding == pytest.approx(TRUE.crowding, abs=0.03)
    assert found.weight_bytes == 1000
    for method, line in TRUE.latency.items():
        # To some milliseconds of a step of two seconds: what is measured is crowded, too.
        assert found.way(method, 32) == pytest.approx(line.of(32), abs=5e-3), method


def test_without_runs_in_which_parts_work_at_once_crowding_is_counted_as_none(tmp_path):
    lockstep = {kind: KINDS[kind] for kind in ("whole", "half")}
    seen = {kind: [run_of(tmp_path / kind, each, TRUE)] for kind, each in lockstep.items()}
    found = fit(lockstep, seen, cores=CORES)
    assert found.crowding == 0
    assert found.generate == pytest.approx(TRUE.generate, rel=0.1, abs=2e-3)


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("samplers", [1, 2, 3])
def test_runs_that_were_not_calibrated_on_are_foretold(tmp_path, samplers: int, lag: int):
    config = load("quickstart", [f"student.replicas={samplers}", f"replay.max_policy_lag={lag}"])
    found = fit(KINDS, calibration(tmp_path, TRUE), cores=CORES)
    foretold, real = (simulate(config, costs, cores=CORES) for costs in (found, TRUE))
    assert foretold.step_seconds == pytest.approx(real.step_seconds, rel=0.03)


def test_of_several_runs_of_a_kind_the_middle_one_counts(tmp_path):
    seen = calibration(tmp_path / "middle", TRUE)
    others = [
        calibration(
            tmp_path / name,
            replace(
                TRUE,
                generate=TRUE.generate._replace(fixed=TRUE.generate.fixed * times),
                load=TRUE.load * times,
            ),
        )
        for name, times in (("slow", 5), ("fast", 0.2))
    ]
    three = {kind: seen[kind] + [run for other in others for run in other[kind]] for kind in seen}
    middle = fit(KINDS, three, cores=CORES)
    alone = fit(KINDS, seen, cores=CORES)
    assert middle.generate == pytest.approx(alone.generate)
    assert middle.load == alone.load


def test_a_gap_is_between_the_last_that_was_waited_for_and_the_first_that_waited():
    calls = [
        Call("generate", 0, 1),
        Call("judge", 1.5, 2),
        Call("generate", 2, 3),
        Call("judge", 3.25, 4),
        Call("forward_backward", 5, 6),
        Call("optim_step", 6.125, 7),
    ]
    assert gap_before(calls, "judge") == 0.375, "median of 0.5 and 0.25"
    assert gap_before(calls, "forward_backward") == 1, "behind the second judge"
    assert gap_before(calls, "optim_step") == 0.125
    assert gap_before(calls, "load_weights") == 0, "there is none"
    assert seconds_of(calls, "judge") == 0.625
