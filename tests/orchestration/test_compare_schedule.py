"""In which order runs start, what they wait for, and what is said of each."""

import asyncio
from collections.abc import Callable

from orchestration.comparison_runs import PlannedRun, planned_runs
from orchestration.comparison_schedule import Schedule, child_environment
from tests.orchestration.comparison_builders import METHODS, TEACHER, finish, plan

THREE = {**METHODS, "seqkd": {"overrides": ["objective.type=seqkd"]}}


class Instant:
    """Processes that end when they are asked for, the oldest first: a run leaves its folder."""

    def __init__(self, runs: list[PlannedRun], fails: tuple[str, ...] = ()) -> None:
        self.signal = None
        self.runs = {run.name: run for run in runs}
        self.fails = fails
        self.active: list[str] = []
        self.together: list[list[str]] = []
        """What ran at each start."""
        self.commands: dict[str, list[str]] = {}

    def start(self, name: str, command: list[str], log) -> None:
        self.active.append(name)
        self.together.append(list(self.active))
        self.commands[name] = command
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("starting\nerror: the data are gone\n")

    async def next(self) -> tuple[str, int]:
        name = self.active.pop(0)
        if name in self.fails:
            return name, 4
        handed = f"teacher.model={TEACHER}" in self.commands[name]
        finish(self.runs[name], 50.0, 60.0, teacher=TEACHER if handed else None)
        return name, 0


def _go(given, *, fails: tuple[str, ...] = (), before: Callable[[list], None] = lambda _: None):
    runs = planned_runs(given)
    before(runs)
    processes, said = Instant(runs, fails), []
    schedule = Schedule(given, runs, said.append)
    asyncio.run(schedule.run(processes))  # type: ignore[arg-type]
    return processes, said, schedule


def test_the_makers_of_models_finish_before_others_start_beside_each_other(tmp_path):
    processes, _, _ = _go(plan(tmp_path, methods=THREE, parallel=3))
    assert processes.together == [
        ["dpkd-seed0"],
        ["sft-seed0"],
        ["sft-seed0", "seqkd-seed0"],
        ["sft-seed0", "seqkd-seed0", "dpkd-seed1"],
        ["sft-seed1"],
        ["sft-seed1", "seqkd-seed1"],
    ]


def test_every_run_but_the_first_is_handed_the_teacher_that_it_made(tmp_path):
    processes, _, _ = _go(plan(tmp_path, parallel=2))
    handed = {
        name: f"teacher.model={TEACHER}" in command for name, command in processes.commands.items()
    }
    assert handed == {
        "dpkd-seed0": False,
        "sft-seed0": True,
        "dpkd-seed1": True,
        "sft-seed1": True,
    }


def test_seeds_that_share_nothing_start_beside_each_other(tmp_path):
    processes, _, _ = _go(plan(tmp_path, share_teacher=False, parallel=2))
    assert processes.together[1] == ["dpkd-seed0", "dpkd-seed1"]


def test_a_second_invocation_starts_nothing(tmp_path):
    given = plan(tmp_path)
    _go(given)
    processes, said, schedule = _go(given)
    assert processes.commands == {}
    assert said == []
    assert schedule.failed == []


def test_only_what_failed_before_is_made_again(tmp_path):
    given = plan(tmp_path)
    _go(given, fails=("sft-seed0", "dpkd-seed1"))
    processes, _, _ = _go(given)
    assert sorted(processes.commands) == ["dpkd-seed1", "sft-seed0"]


def test_another_run_stands_in_for_a_maker_that_failed(tmp_path):
    processes, _, schedule = _go(plan(tmp_path, parallel=2), fails=("dpkd-seed0",))
    assert processes.together[:2] == [["dpkd-seed0"], ["sft-seed0"]]
    assert f"teacher.model={TEACHER}" not in processes.commands["sft-seed0"]
    assert f"teacher.model={TEACHER}" in processes.commands["dpkd-seed1"]
    assert [run.name for run in schedule.failed] == ["dpkd-seed0"]


def test_each_end_is_one_line(tmp_path):
    _, said, _ = _go(plan(tmp_path), fails=("sft-seed0",))
    assert len(said) == 4
    # 90 s of wall clock a run, three left, one at a time: 4.5 minutes.
    assert said[0].startswith("[1/4] dpkd-seed0: 0.0 min, Rouge-L 55.0 sampled, 60.0 greedy; ")
    assert said[0].endswith("about 4 min to go")
    assert said[1].startswith("[2/4] sft-seed0: failed after 0.0 min, exit code 4: error: the data")
    assert str(tmp_path / "small" / "logs" / "sft-seed0.log") in said[1]
    assert said[3].endswith("60.0 greedy")


def test_local_runs_get_one_thread_unless_the_user_says_more(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert child_environment(plan(tmp_path))["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in child_environment(plan(tmp_path, local=False))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert child_environment(plan(tmp_path))["OMP_NUM_THREADS"] == "3"
