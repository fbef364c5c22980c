"""A served teacher that is slow, full, broken, talks rubbish, or is suddenly another."""

import threading
import time
from typing import Any

import pytest

from actors.served_model import QUESTION
from tests.actors.openai_stub import BROKEN_OFF, Answer, OpenAiStub, error, text_answer
from tests.e2e.tiny import TINY
from tests.faults.faulty_run import FaultyRun

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SEQKD = tuple(key for key in TINY if not key.startswith(("teacher.make", "teacher.warm_start")))


class IllServer(OpenAiStub):
    """Fails every fifth request in another way, and has nothing usable to say to some prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = {"id": "big"}
        self.asked_for = 0
        self.hopeless: set[str] = set()
        self.reply = self._reply
        self._count = threading.Lock()

    def _reply(self, body: dict[str, Any]) -> Any:
        with self._count:
            self.asked_for += 1
            turn = self.asked_for
        prompt = body.get("prompt", "")
        if prompt in self.hopeless or (not self.hopeless and turn > 40 and prompt != QUESTION):
            self.hopeless.add(prompt)
            return {"choices": [{"text": 7}]}
        if turn % 5 or turn < 10:
            return text_answer(f" answer {len(prompt) % 7}")
        return self._ill(turn // 5 % 5)

    def _ill(self, kind: int) -> Any:
        if kind == 4:
            time.sleep(2)
            return text_answer(" late")
        return (
            Answer(error("slow down"), 429, {"Retry-After": "1"}),
            Answer(error("oh no"), 500),
            Answer('{"choices": [{"text": " cut o'),
            Answer("", BROKEN_OFF),
        )[kind]


def test_an_ill_server_costs_one_prompt_and_another_model_stops_the_run(tmp_path, report):
    with IllServer() as server:
        served = (
            *("cluster.local=true", "teacher.type=openai", f"teacher.base_url={server.base_url}"),
            *("teacher.model=big", "teacher.key_env=null", "evaluation.teacher=false"),
            *("checkpoint.every=3", "resume=auto"),
        )
        run = FaultyRun(
            tmp_path, *served, "learner.steps=12", name="ill", recipe="seqkd", tiny=SEQKD
        )
        assert run.wait() == 0, run.tail()
        ledger = run.json("summary.json")["ledger"]
        assert ledger == {
            "issued": 97,
            "consumed": 96,
            "in_flight": 0,
            "dropped": {"teacher_failed": 1},
        }
        assert "gave an answer that cannot be used (text of type int)" in run.log.read_text()
        run.verify()
        report(run.outcome("5 teacher slow, 429, 500, cut off, rubbish", "a server"))

        other = FaultyRun(
            tmp_path, *served, "learner.steps=99", name="ill", recipe="seqkd", tiny=SEQKD
        )

        def replace() -> None:
            server.model = {"id": "big", "root": "/another"}
            server.answer_next(Answer(error("restarting"), 500))

        assert other.wait(other.at_step(14, replace)) == 3, other.tail()
        status = other.json("status.json")
        assert "now serves another model" in status["reason"]
        assert other.newest_checkpoint().name == f"step-{status['step']:08d}"
        other.verify()

        server.model = {"id": "big"}
        steps = f"learner.steps={status['step'] + 2}"
        on = FaultyRun(tmp_path, *served, steps, name="ill", recipe="seqkd", tiny=SEQKD)
        assert on.wait() == 0, on.tail()
    on.verify()
    report(on.outcome("5 served teacher replaced by another", "its list of models"))
