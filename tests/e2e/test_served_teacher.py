"""Whole runs with a teacher that is a real server, on loopback."""

from pathlib import Path

import pytest

from tests.actors.vllm_server import vllm_server
from tests.e2e.tiny import TINY, TinyRun

LOCAL = ("cluster.local=true", "learner.steps=3", "evaluation.samples=1")


@pytest.mark.engine
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_served_teacher_takes_the_made_ones_place(tmp_path: Path):
    made = TinyRun(tmp_path, *LOCAL, name="made")
    assert made.wait() == 0, made.tail()
    folder = Path(made.json("summary.json")["models"]["teacher"])
    with vllm_server(folder, "--served-model-name", "big", "--max-logprobs", "20") as url:
        served = ("teacher.type=openai", f"teacher.base_url={url}", "teacher.model=big")
        by_ids = TinyRun(
            tmp_path,
            *LOCAL,
            *served,
            "teacher.tokens=ids",
            "teacher.distribution_top_k=20",
            name="ids",
            recipe="gkd",
            tiny=_without_a_made_teacher(),
        )
        assert by_ids.wait() == 0, by_ids.tail()
        by_text = TinyRun(
            tmp_path, *LOCAL, *served, name="text", recipe="seqkd", tiny=_without_a_made_teacher()
        )
        assert by_text.wait() == 0, by_text.tail()
    ids, text = by_ids.json("summary.json"), by_text.json("summary.json")
    assert ids["ledger"]["consumed"] == text["ledger"]["consumed"] == 24
    assert ids["teacher_fingerprint"] and ids["teacher_fingerprint"] in by_ids.log.read_text()
    # A server that scores gives the reverse KL; text alone cannot.
    assert ids["eval"]["after"]["reverse_kl_nats"] > 0
    assert "reverse_kl_nats" not in text["eval"]["after"]
    # The same student was distilled by all three.
    starts = {run.json("summary.json")["models"]["student"] for run in (made, by_ids, by_text)}
    assert len(starts) == 1


def _without_a_made_teacher() -> tuple[str, ...]:
    """A served teacher has no ``make`` and no ``warm_start``."""
    return tuple(key for key in TINY if not key.startswith(("teacher.make", "teacher.warm_start")))
