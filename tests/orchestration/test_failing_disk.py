"""A disk that refuses checkpoints, under the real session over parts without models."""

import pytest

from configs.errors import CheckpointError
from tests.orchestration.small_run import SmallRun
from tests.orchestration.test_fault_enumeration import is_honest, is_whole

REFUSALS = ("driver:checkpoint_begun", "driver:checkpoint_filled", "driver:checkpoint_sealed")


@pytest.mark.parametrize("place", REFUSALS)
def test_a_refusal_costs_one_checkpoint_and_not_the_run(tmp_path, monkeypatch, place):
    run = SmallRun(tmp_path / "runs", monkeypatch)
    assert run.live(f"{place}:2:raise")
    assert "The run goes on (1 in a row)" in run.said.getvalue()
    assert not list(run.folder.rglob("*.tmp"))
    is_whole(run)


def test_refusals_in_a_row_end_the_run_which_goes_on_from_the_last_one_that_was_taken(
    tmp_path, monkeypatch
):
    run = SmallRun(tmp_path / "runs", monkeypatch, {"checkpoint": {"every": 2, "max_failures": 2}})
    full = ",".join(f"{REFUSALS[0]}:{visit}:raise" for visit in (2, 3))
    with pytest.raises(CheckpointError, match="of step 6 cannot be written"):
        run.live(full)
    said = run.said.getvalue()
    assert "(1 in a row)" in said and "(2 in a row)" not in said
    is_honest(run)
    assert run.live()
    assert "step-00000002" in run.said.getvalue()
    is_whole(run)
