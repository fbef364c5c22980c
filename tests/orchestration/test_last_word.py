"""What a run leaves, in which order: whoever signals may kill it before it has taken all apart."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestration.crew import Crew
from orchestration.examiner import Examiner
from orchestration.lifecycle import StopRequest
from orchestration.roles import RoleDied
from tests.orchestration.small_run import SmallRun


def told(run: SmallRun) -> list[Any]:
    status = json.loads((run.folder / "status.json").read_text())
    return [status[key] for key in ("state", "reason", "exit_code", "step")]


class Looks:
    """What was on the disk when the student was looked at for the last time, and at the end."""

    def __init__(self, run: SmallRun, patch: pytest.MonkeyPatch) -> None:
        self._run = run
        self.evaluated: dict[str, Any] = {}
        self.taken_apart: dict[str, Any] = {}
        look, stop = Examiner.look, Crew.stop

        async def looked(examiner: Examiner, when: str, *rest: Any) -> None:
            if when == "after":
                self.evaluated = self._disk()
            await look(examiner, when, *rest)

        async def stopped(crew: Crew) -> None:
            self.taken_apart = self._disk()
            await stop(crew)

        patch.setattr(Examiner, "look", looked)
        patch.setattr(Crew, "stop", stopped)

    def _disk(self) -> dict[str, Any]:
        folder = self._run.folder
        return {
            "status": told(self._run),
            "student": (folder / "student" / "model.safetensors").exists(),
            "checkpoints": sorted(path.name for path in folder.glob("checkpoints/step-*")),
            "summary": (folder / "summary.json").exists(),
        }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    return SmallRun(
        tmp_path / "runs", monkeypatch, settings={"learner": {"steps": 4, "batch_size": 2}}
    )


def test_before_a_run_is_taken_apart_it_has_said_that_it_succeeded(run, monkeypatch):
    looks = Looks(run, monkeypatch)
    assert run.live()
    assert looks.evaluated["status"] == ["running", "", 0, 4]
    assert looks.evaluated["student"], "an evaluation may fail: what took hours is there before"
    assert looks.taken_apart["status"] == ["succeeded", "", 0, 4]
    assert looks.taken_apart["summary"]


def test_a_run_that_was_told_to_stop_says_so_once_its_checkpoint_and_student_are_there(
    run, monkeypatch
):
    def at_once(stop: StopRequest, finish_step: Any) -> None:
        if finish_step:
            stop.signal = signal.SIGTERM
            finish_step()

    monkeypatch.setattr(StopRequest, "on_first_signal", at_once)
    looks = Looks(run, monkeypatch)
    assert run.live()
    assert looks.evaluated["status"][:3] == ["stopped", "SIGTERM", 143]
    assert looks.evaluated["student"] and looks.evaluated["checkpoints"] == ["step-00000000"]
    assert not looks.evaluated["summary"], "it may be killed here"
    assert looks.taken_apart["status"][:3] == ["stopped", "SIGTERM", 143]


def test_one_that_is_told_to_stop_while_it_is_evaluated_says_so_at_once(run, monkeypatch):
    heard: list[Any] = []
    asked: list[StopRequest] = []
    remember, look = StopRequest.on_first_signal, Examiner.look

    def remembered(stop: StopRequest, finish_step: Any) -> None:
        asked[:] = [stop]
        remember(stop, finish_step)

    async def signalled(examiner: Examiner, when: str, *rest: Any) -> None:
        if when == "after":
            asked[0]._handle(signal.SIGTERM)
            heard.append(told(run))
        await look(examiner, when, *rest)

    monkeypatch.setattr(StopRequest, "on_first_signal", remembered)
    monkeypatch.setattr(Examiner, "look", signalled)
    assert run.live()
    assert heard == [["stopped", "SIGTERM", 143, 4]]


def test_a_death_in_the_last_evaluation_of_a_stopped_run_costs_no_student(run, monkeypatch):
    look = Examiner.look
    saved: list[bytes] = []
    student = run.folder / "student" / "model.safetensors"

    async def dies(examiner: Examiner, when: str, *rest: Any) -> None:
        if when == "after":
            saved.append(student.read_bytes())
            raise RoleDied("learner-0 died", role="learner-0", life=0)
        await look(examiner, when, *rest)

    def at_once(stop: StopRequest, finish_step: Any) -> None:
        if finish_step:
            stop.signal = signal.SIGTERM
            finish_step()

    monkeypatch.setattr(StopRequest, "on_first_signal", at_once)
    monkeypatch.setattr(Examiner, "look", dies)
    assert run.live()
    assert saved == [student.read_bytes()]
    assert told(run)[:3] == ["stopped", "SIGTERM", 143]
    assert "stopped without a last evaluation: learner-0 died" in run.said.getvalue()
