"""What a run goes on from, and what it must agree in."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError, DataError
from configs.load import dump
from configs.wire import Uid
from orchestration.checkpoints import Checkpoints
from orchestration.ledger import Ledger
from orchestration.resume import check_facts, find_origin
from tests.builders import run_config


def facts(**sections: Any) -> dict[str, Any]:
    return {
        "config": run_config(**sections).model_dump(mode="json"),
        "data": ["d1", 100],
        "tokenizer": "t1",
        "models.student": "s1",
        "models.teacher": "t1",
    }


DETERMINISTIC = {
    "deterministic": True,
    "learner": {"dtype": "float32"},
    "student": {"model": "s", "dtype": "float32"},
    "teacher": {"model": "t", "dtype": "float32"},
}


def test_the_same_run_is_accepted():
    check_facts(facts(), facts(), accept=())


def test_where_and_how_fast_a_run_goes_on_may_change():
    check_facts(
        facts(),
        facts(
            name="other",
            output="/elsewhere",
            resume="auto",
            checkpoint={"every": 7},
            supervision={"max_restarts": 1},
            learner={"steps": 999, "ranks": 2, "micro_batch_tokens": 64, "threads": 3},
            replay={"max_dropped": 1, "max_tuples": 99},
            student={"model": "moved/s", "replicas": 3},
            teacher={"model": "moved/t", "replicas": 2, "cache": False},
            data={"train": "moved.jsonl"},
            monitoring={"port": 9},
            evaluation={"every": 5},
            cluster={"call_timeout_seconds": 5},
        ),
        accept=(),
    )


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"seed": 1}, "seed is 1 and was 0"),
        ({"learner": {"batch_size": 8}}, "learner.batch_size is 8 and was 32"),
        ({"learner": {"learning_rate": 0.5}}, "learner.learning_rate is 0.5 and was 0.001"),
        ({"objective": {"type": "seqkd"}}, "objective.type is 'seqkd' and was 'dpkd'"),
        ({"replay": {"max_policy_lag": 2}}, "replay.max_policy_lag is 2 and was 0"),
        ({"data": {"max_prompt_tokens": 9}}, "data.max_prompt_tokens is 9 and was 256"),
        (
            {"student": {"model": "s", "sampling": {"temperature": 0.5}}},
            "student.sampling.temperature is 0.5 and was 1.0",
        ),
    ],
)
def test_what_is_learned_may_not_change_unless_it_is_accepted_by_name(sections, said):
    with pytest.raises(ConfigError, match=said) as caught:
        check_facts(facts(), facts(**sections), accept=())
    assert "checkpoint.accept=[KEY]" in str(caught.value)
    changed = said.split(" is ")[0]
    others = ("objective",) if changed.startswith("objective") else ()
    check_facts(facts(), facts(**sections), accept=(changed, *others))


def test_every_difference_is_named_at_once():
    changed = facts(seed=1, learner={"learning_rate": 0.5})
    with pytest.raises(ConfigError, match=r"learner\.learning_rate is .*; seed is 1") as caught:
        check_facts(facts(), changed, accept=())
    with pytest.raises(ConfigError, match="seed is 1") as caught:
        check_facts(facts(), changed, accept=("learner.learning_rate",))
    assert "learning_rate" not in str(caught.value)


def test_to_accept_a_section_is_to_accept_what_is_in_it_and_nothing_that_begins_alike():
    check_facts(facts(), facts(learner={"learning_rate": 0.5}), accept=("learner",))
    with pytest.raises(ConfigError, match=r"learner\.learning_rate"):
        check_facts(facts(), facts(learner={"learning_rate": 0.5}), accept=("learner.learning",))


@pytest.mark.parametrize("key", ["data", "tokenizer", "models.student", "models.teacher"])
def test_other_content_under_the_same_path_is_refused_unless_accepted(key):
    other = facts() | {key: ["d2", 100] if key == "data" else "x2"}
    with pytest.raises(ConfigError, match=f"{key} has other content than it had"):
        check_facts(facts(), other, accept=())
    check_facts(facts(), other, accept=(key,))


def test_a_teacher_that_is_not_known_yet_is_no_difference():
    known = facts()
    unknown = {key: value for key, value in known.items() if key != "models.teacher"}
    check_facts(known, unknown, accept=())


def test_more_rows_are_other_content():
    with pytest.raises(ConfigError, match="data has other content"):
        check_facts(facts(), facts() | {"data": ["d1", 101]}, accept=())


@pytest.mark.parametrize(
    ("learner", "may"),
    [
        ({"zero_stage": 0}, True),
        ({"zero_stage": 1}, False),
        ({"zero_stage": 3}, False),
        ({"zero_stage": 0, "dtype": "bfloat16"}, False),
    ],
)
def test_only_an_optimizer_that_is_not_split_goes_on_with_other_ranks(learner, may):
    old, new = facts(learner=learner), facts(learner=learner | {"ranks": 2})
    if may:
        check_facts(old, new, accept=())
    else:
        with pytest.raises(ConfigError, match=r"learner\.ranks is 2 and was 1, under ZeRO stage"):
            check_facts(old, new, accept=("learner",))


@pytest.mark.parametrize(
    "sections",
    [
        {"learner": {"micro_batch_tokens": 64}},
        {"student": {"model": "s", "batch_size": 3}},
        {"replay": {"max_tuples": 99}},
    ],
)
def test_a_deterministic_run_may_change_less(sections):
    merged = {
        key: value | sections.get(key, {}) if isinstance(value, dict) else value
        for key, value in (DETERMINISTIC | {"replay": {}}).items()
    }
    check_facts(facts(), facts(**sections), accept=())
    with pytest.raises(ConfigError, match="belongs to another run"):
        check_facts(facts(**DETERMINISTIC), facts(**merged), accept=())
    check_facts(facts(**DETERMINISTIC), facts(**DETERMINISTIC, name="b", cache="c"), accept=())


class Story:
    """A run folder with a ledger, and checkpoints of steps 2 and 4."""

    def __init__(self, root: Path, name: str = "run", **sections: Any) -> None:
        self.config = run_config(name=name, output=root, **sections)
        self.run = root / name
        self.run.mkdir()
        (self.run / "config.yaml").write_text(dump(self.config))
        self.home = Checkpoints(self.run / "checkpoints", keep=5)
        self.heard: list[str] = []
        with Ledger(self.run / "events.jsonl") as ledger:
            for step in range(1, 6):
                ledger.issued([Uid(0, step, 0)])
                ledger.consumed(step, [Uid(0, step, 0)])
                if step in (2, 4):
                    state = {"step": step, **ledger.mark()}
                    asyncio.run(self.home.write(step, _fill, state=state, facts={}))

    def origin(self, resume: str | Path):
        config = self.config.model_copy(update={"resume": str(resume)})
        return find_origin(config, self.run, self.heard.append)

    def damage(self, step: int) -> None:
        (self.home.folder / f"step-{step:08d}" / "engine.bin").write_bytes(b"?")


async def _fill(folder: Path) -> None:
    (folder / "engine.bin").write_bytes(b"engine")


def test_never_means_to_begin_whatever_is_there(tmp_path):
    assert Story(tmp_path).origin("never") is None


def test_auto_goes_on_from_the_newest_checkpoint_of_the_run(tmp_path):
    story = Story(tmp_path)
    origin = story.origin("auto")
    assert origin and (origin.checkpoint.step, origin.same_run) == (4, True)
    assert story.heard == []


def test_auto_falls_back_loudly(tmp_path):
    story = Story(tmp_path)
    story.damage(4)
    origin = story.origin("auto")
    assert origin and origin.checkpoint.step == 2
    assert "step-00000004: engine.bin has 1 bytes of 6; trying the one before" in story.heard[0]


def test_auto_does_not_begin_again_where_every_checkpoint_is_damaged(tmp_path):
    story = Story(tmp_path)
    story.damage(2)
    story.damage(4)
    with pytest.raises(DataError, match="none of the 2 checkpoints"):
        story.origin("auto")


def test_auto_begins_where_there_is_no_such_run(tmp_path):
    heard: list[str] = []
    config = run_config(resume="auto", output=tmp_path)
    assert find_origin(config, tmp_path / "run", heard.append) is None
    assert heard == []


def test_auto_begins_again_and_says_so_where_no_checkpoint_was_made_yet(tmp_path):
    story = Story(tmp_path)
    shutil.rmtree(story.home.folder)
    assert story.origin("auto") is None
    assert "ended before its first checkpoint: the run begins again" in story.heard[0]


@pytest.mark.parametrize("edit", ["changed", "shortened", "missing"])
def test_a_ledger_that_is_not_the_one_of_the_checkpoint_is_refused(tmp_path, edit):
    story = Story(tmp_path)
    ledger = story.run / "events.jsonl"
    if edit == "missing":
        ledger.unlink()
    else:
        content = ledger.read_text()
        ledger.write_text(content.replace("0/1/0", "0/9/0") if edit == "changed" else content[:90])
    with pytest.raises(DataError, match="does not begin as it did at checkpoint") as caught:
        story.origin("auto")
    assert "name=ANOTHER" in str(caught.value)


def test_a_torn_line_behind_the_checkpoint_is_no_edit(tmp_path):
    story = Story(tmp_path)
    with (story.run / "events.jsonl").open("a") as ledger:
        ledger.write('{"event":"iss')
    origin = story.origin("auto")
    assert origin and origin.checkpoint.step == 4


def test_a_path_may_name_an_earlier_checkpoint_of_the_same_run(tmp_path):
    story = Story(tmp_path)
    origin = story.origin(story.home.folder / "step-00000002")
    assert origin and (origin.checkpoint.step, origin.same_run) == (2, True)


@pytest.mark.parametrize("what", [".", "checkpoints", "checkpoints/step-00000004"])
def test_a_path_may_name_another_run_its_checkpoints_or_one_of_them(tmp_path, what):
    old = Story(tmp_path, "old")
    new = run_config(name="new", output=tmp_path, resume=str(old.run / what))
    origin = find_origin(new, tmp_path / "new", old.heard.append)
    assert origin and (origin.checkpoint.step, origin.same_run) == (4, False)


def test_a_path_goes_on_even_where_the_other_runs_ledger_has_gone(tmp_path):
    old = Story(tmp_path, "old")
    (old.run / "events.jsonl").unlink()
    new = run_config(name="new", output=tmp_path, resume=str(old.run))
    origin = find_origin(new, tmp_path / "new", old.heard.append)
    assert origin and origin.checkpoint.state["account"]["consumed"] == [[0, 0, 1, 5]]


def test_a_checkpoint_whose_run_folder_has_gone_is_another_runs(tmp_path):
    story = Story(tmp_path, checkpoint={"folder": tmp_path / "kept"})
    shutil.copytree(story.home.folder, tmp_path / "kept" / "run")
    shutil.rmtree(story.run)
    origin = story.origin(tmp_path / "kept" / "run" / "step-00000004")
    assert origin and (origin.checkpoint.step, origin.same_run) == (4, False)


def test_a_path_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint there"):
        Story(tmp_path).origin(tmp_path / "nowhere")


def test_a_path_to_a_damaged_checkpoint_means_that_one_and_no_other(tmp_path):
    story = Story(tmp_path)
    story.damage(4)
    with pytest.raises(DataError, match=r"step-00000004: engine\.bin has 1 bytes of 6"):
        story.origin(story.home.folder / "step-00000004")


def test_a_checkpoints_account_is_plain_json(tmp_path):
    origin = Story(tmp_path).origin("auto")
    assert origin
    account = origin.checkpoint.state["account"]
    assert json.loads(json.dumps(account)) == account
    assert account == {"consumed": [[0, 0, 1, 5]], "dropped": {}, "in_flight": []}
