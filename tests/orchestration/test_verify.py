"""`python -m orchestration.verify`: an honest run holds every claim, and each can be broken."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from configs.wire import Uid
from orchestration.account import Event
from orchestration.claims import CLAIMS, Judgement, judge
from orchestration.claims_ledger import no_use_is_missing, steps_are_consecutive
from orchestration.evidence import DoesNotApply, Evidence, fold
from orchestration.gathering import gather
from orchestration.verify import main
from tests.builders import run_config
from tests.orchestration.small_run import SmallRun


@cache
def files() -> dict[Path, bytes]:
    """A run that was killed after step 7 learned, went on from step 6, and came to its end."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        run = SmallRun(Path(folder) / "runs", patch)
        assert not run.live("driver:consumed:7:kill")
        assert run.live()
        paths = [path for path in run.folder.rglob("*") if path.is_file()]
        return {path.relative_to(run.folder): path.read_bytes() for path in paths}


def honest_run(folder: Path) -> Path:
    for path, content in files().items():
        (folder / "run" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "run" / path).write_bytes(content)
    return folder / "run"


def judgements(run: Path) -> dict[str, Judgement]:
    return {judgement.claim: judgement for judgement in judge(gather(run))}


def test_an_honest_run_holds_every_claim(tmp_path):
    verdicts = {each.claim: each.verdict for each in judgements(honest_run(tmp_path)).values()}
    assert verdicts == dict.fromkeys(CLAIMS, "ok")


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        path = run / name
        before = path.read_text()
        after = change(before)
        assert after != before, "nothing was spoiled"
        path.write_text(after)

    return spoil


def ledger(change: Callable[[list[Event]], Any]) -> Callable[[Path], None]:
    """Let ``change`` do something to the list of events."""

    def rewrite(text: str) -> str:
        events = [json.loads(line) for line in text.splitlines()]
        change(events)
        return "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)

    return edit("events.jsonl", rewrite)


def appended(**event: Any) -> Callable[[Path], None]:
    return ledger(lambda events: events.append({"time": 0, **event}))


def renamed_uid(old: str, new: str) -> Callable[[Path], None]:
    return edit("events.jsonl", lambda text: text.replace(f'"{old}"', f'"{new}"'))


def first(events: list[Event], kind: str, **facts: Any) -> Event:
    found = (e for e in events if e["event"] == kind and facts.items() <= e.items())
    return next(found)


def without(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def truncated(name: str) -> Callable[[Path], None]:
    return lambda run: os.truncate(run / name, (run / name).stat().st_size - 3)


def line(name: str, number: int, text: str) -> Callable[[Path], None]:
    """Put ``text`` in the place of a line."""

    def change(content: str) -> str:
        lines = content.splitlines(keepends=True)
        lines[number - 1] = text
        return "".join(lines)

    return edit(name, change)


def forged_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the newest checkpoint's state, and the manifest with it."""

    def spoil(run: Path) -> None:
        home = run / "checkpoints" / "step-00000012"
        state = json.loads((home / "state.json").read_text())
        change(state)
        content = json.dumps(state).encode()
        (home / "state.json").write_bytes(content)
        manifest = json.loads((home / "manifest.json").read_text())
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"]["state.json"] = {"bytes": len(content), "sha256": digest}
        (home / "manifest.json").write_text(json.dumps(manifest))

    return spoil


def twice(text: str) -> str:
    return text + text.splitlines(keepends=True)[-1]


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    ("the files can be read", without("events.jsonl"), "events.jsonl is missing"),
    ("the files can be read", without("metrics.jsonl"), "metrics.jsonl is missing"),
    ("the files can be read", without("summary.json"), "summary.json is missing"),
    ("the files can be read", without("status.json"), "status.json is missing"),
    ("the files can be read", truncated("summary.json"), "summary.json cannot be read"),
    ("the files can be read", line("events.jsonl", 3, "oops\n"), "line 3: not JSON"),
    ("the files can be read", line("metrics.jsonl", 2, "[]\n"), "metrics.jsonl, line 2: cannot"),
    (
        "the files can be read",
        line("events.jsonl", 4, '{"event": "consumed", "uids": []}\n'),
        "line 4: not a whole 'consumed' event",
    ),
    (
        "the files can be read",
        edit("config.yaml", lambda text: text.replace("batch_size", "bath_size")),
        "bath_size",
    ),
    (
        "the ledger has no impossible event",
        appended(event="issued", uids=["0/0/0"]),
        "uid 0/0/0 was issued twice",
    ),
    (
        "the ledger has no impossible event",
        edit("events.jsonl", lambda text: text.replace("2/6/0", "2/5/0")),
        "uid 2/5/0 was issued twice",
    ),
    (
        "the ledger has no impossible event",
        appended(event="consumed", step=13, uids=["0/0/0"]),
        "uid 0/0/0 was consumed, but is not in flight",
    ),
    (
        "the ledger has no impossible event",
        appended(event="issued", uids=["zero"]),
        "a malformed issued",
    ),
    (
        "issued = consumed + dropped + in flight",
        appended(event="consumed", step=13, uids=["9/0/0"]),
        "24 issued, but 25 consumed + 0 dropped + 0 in flight",
    ),
    (
        "nothing is in flight at the end",
        appended(event="issued", uids=["3/3/0"]),
        "in flight at the end: 3/3/0",
    ),
    (
        "every drop has a reason",
        appended(event="dropped", reason="boredom", uids=[]),
        "dropped as 'boredom', which is no reason",
    ),
    (
        "steps are consecutive",
        ledger(lambda events: events.remove(first(events, "consumed", step=3))),
        "step 4, where 3 was due",
    ),
    (
        "steps are consecutive",
        ledger(lambda events: first(events, "rolled_back").update(step=5)),
        "step 7, where 6 was due",
    ),
    (
        "steps are consecutive",
        ledger(lambda events: first(events, "rolled_back").update(step=99)),
        "rolled back to step 99, which was not made",
    ),
    (
        "steps are consecutive",
        edit("config.yaml", lambda text: text.replace("steps: 12", "steps: 20")),
        "ends at step 12 of 20",
    ),
    (
        "every step learned from a whole batch",
        ledger(lambda events: first(events, "consumed", step=3)["uids"].pop()),
        "step 3 learned from 1 uses, not 2",
    ),
    (
        "resumes put back what they undid",
        ledger(lambda events: first(events, "rolled_back")["uids"].pop()),
        "uid 1/6/0 is in what was undone or in what was put back, but not in both",
    ),
    (
        "no use of a prompt is missing",
        renamed_uid("1/3/0", "4/0/0"),
        "never issued, though later ones were: 1/3/0, 3/3/0, 3/4/0 and 2 more",
    ),
    (
        "no use of a prompt is missing",
        renamed_uid("1/3/0", "1/7/0"),
        "not of 7 rows with 1 samples each: 1/7/0",
    ),
    (
        "no use of a prompt is missing",
        renamed_uid("1/3/0", "1/3/1"),
        "not of 7 rows with 1 samples each: 1/3/1",
    ),
    (
        "no response was too old",
        edit("metrics.jsonl", lambda text: text.replace('"lag": 0', '"lag": 1', 1)),
        "metrics.jsonl, line 1: lag 1 above 0",
    ),
    (
        "metrics have each step once",
        edit("metrics.jsonl", twice),
        "metrics.jsonl, line 13: step 12, where 13 was due",
    ),
    (
        "metrics have each step once",
        edit("metrics.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:-1])),
        "metrics.jsonl: ends at step 11, the ledger at 12",
    ),
    (
        "checkpoints are sound",
        truncated("checkpoints/step-00000010/engine/chain.json"),
        "step-00000010: engine/chain.json has",
    ),
    (
        "checkpoints belong to the ledger",
        edit("events.jsonl", lambda text: text.replace('"time":1', '"time":2', 1)),
        "step-00000012/state.json: it seals",
    ),
    (
        "checkpoints belong to the ledger",
        forged_state(lambda state: state["account"]["consumed"][0].__setitem__(3, 6)),
        "step-00000012/state.json: its account is not that of the ledger's first",
    ),
    (
        "checkpoints belong to the ledger",
        lambda run: (run / "checkpoints/step-00000012").rename(run / "checkpoints/step-00000014"),
        "it is of step 12, and its ledger ends at step [12]",
    ),
    (
        "checkpoints belong to the ledger",
        appended(event="rolled_back", step=10, uids=["2/6/0", "3/0/0", "3/1/0", "3/2/0"]),
        "step-00000012/state.json: a resume from step 10 has undone it",
    ),
    (
        "the latest checkpoint is there",
        edit("checkpoints/LATEST", lambda text: "step-00000011\n"),
        "names 'step-00000011', which is not there",
    ),
    ("the latest checkpoint is there", without("checkpoints/LATEST"), "LATEST: missing"),
    (
        "the summary agrees with the ledger",
        edit("summary.json", lambda text: text.replace('"consumed": 24', '"consumed": 23')),
        "summary.json: ledger.consumed is 23, and in events.jsonl 24",
    ),
    (
        "the summary agrees with the ledger",
        edit("summary.json", lambda text: text.replace('"steps": 12', '"steps": 13')),
        "summary.json: steps is 13, and in events.jsonl 12",
    ),
    (
        "the student can be opened",
        without("student/model.safetensors"),
        "student/model.safetensors is missing",
    ),
    (
        "the student can be opened",
        truncated("student/model.safetensors"),
        "student/model.safetensors: cannot be opened",
    ),
]


@pytest.mark.parametrize(("claim", "spoil", "said"), BROKEN)
def test_what_is_not_so_is_found_and_named(tmp_path, claim, spoil, said):
    run = honest_run(tmp_path)
    spoil(run)
    found = judgements(run)[claim]
    assert found.verdict == "broken"
    assert any(said in what for what in found.wrong), found.wrong


def test_every_claim_is_broken_by_one_of_these():
    assert {claim for claim, _, _ in BROKEN} == set(CLAIMS)


def test_a_run_that_was_killed_holds_what_can_be_said_of_it(tmp_path, monkeypatch):
    run = SmallRun(tmp_path / "runs", monkeypatch)
    run.live("driver:consumed:7:kill")
    silent = {j.claim for j in judgements(run.folder).values() if j.verdict == "does not apply"}
    assert silent == {
        "nothing is in flight at the end",
        "resumes put back what they undid",
        "the summary agrees with the ledger",
        "the student can be opened",
    }
    assert not [j for j in judgements(run.folder).values() if j.verdict == "broken"]


def test_a_run_whose_process_is_gone_has_crashed(tmp_path):
    run = honest_run(tmp_path)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "running"}))
    assert gather(run).state == "running"  # its process is this one
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (run / "status.json").write_text(json.dumps(status | {"state": "running", "pid": ended.pid}))
    assert gather(run).state == "crashed"


def test_torn_last_lines_are_what_a_crash_leaves(tmp_path):
    run = honest_run(tmp_path)
    for name in ("events.jsonl", "metrics.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 1')
    assert {judgement.verdict for judgement in judgements(run).values()} == {"ok"}


def evidence(events: Sequence[Event], *, state: str = "stopped", **facts: Any) -> Evidence:
    """A run of which only its ledger, its summary and its settings matter."""
    account, refused = fold(events)
    config = {"learner": {"steps": 2, "batch_size": 2}, **facts.pop("config", {})}
    return Evidence(
        folder=Path("run"),
        state=state,
        settings=run_config(**config),
        summary=facts.pop("summary", None),
        home=Path("run/checkpoints"),
        checkpoints=[],
        damaged=[],
        metrics=[],
        events=events,
        account=account,
        refused=refused,
        unreadable=[],
    )


def issued(*uids: tuple[int, int, int]) -> Event:
    return {"event": "issued", "uids": [str(Uid(*uid)) for uid in uids]}


SKIP = {"data": {"on_bad_row": "skip"}}


@pytest.mark.parametrize(
    ("config", "skipped", "resumed_at", "holds"),
    [
        (SKIP, {"too_long": 1}, None, True),
        (SKIP, {"too_long": 0, "empty_response": 9}, None, False),
        (SKIP, {}, 4, True),
        ({}, {"too_long": 1}, None, False),
    ],
    ids=["counted", "not counted", "counted in another life", "an error, not skipped"],
)
def test_a_row_that_was_passed_over_is_no_loss_where_it_was_counted(
    config, skipped, resumed_at, holds
):
    summary = {"skipped_rows": skipped, "resumed_at": resumed_at}
    run = evidence([issued((0, 0, 0), (0, 2, 0))], config=config, summary=summary)
    assert list(no_use_is_missing(run)) == (
        [] if holds else ["events.jsonl: never issued, though later ones were: 0/1/0"]
    )


def test_a_sample_of_a_use_is_never_passed_over_alone():
    config = SKIP | {"negatives": {"samples": 2}}
    events = [issued((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0))]
    run = evidence(events, config=config)
    assert list(no_use_is_missing(run)) == [
        "events.jsonl: never issued, though later ones were: 0/1/1"
    ]


def test_the_samples_of_the_last_use_may_have_yet_to_come():
    config = {"negatives": {"samples": 2}}
    events = [issued((0, 0, 0), (0, 0, 1), (0, 1, 0))]
    assert list(no_use_is_missing(evidence(events, config=config))) == []


def test_settings_that_a_resume_was_let_change_are_not_held_against_what_was_before():
    accepting = {"checkpoint": {"accept": ["data"]}}
    events = [issued((0, 0, 0), (0, 2, 0)), {"event": "rolled_back", "step": 0, "uids": []}]
    with pytest.raises(DoesNotApply, match="accept"):
        list(no_use_is_missing(evidence(events, config=accepting)))


def test_a_run_that_goes_on_from_another_begins_behind_its_step():
    account = {"consumed": [[0, 0, 0, 2]], "dropped": {}, "in_flight": ["0/2/0", "0/3/0"]}
    events = [
        {"event": "carried", "account": account},
        {"event": "rolled_back", "step": 1, "uids": []},
        {"event": "consumed", "step": 2, "uids": ["0/2/0", "0/3/0"]},
    ]
    run = evidence(events, state="succeeded")
    assert (run.first_step, list(run.standing)) == (2, [2])
    assert [judgement for judgement in judge(run) if judgement.verdict == "broken"] == [
        Judgement(
            claim="metrics have each step once",
            verdict="broken",
            wrong=("metrics.jsonl: ends at step 1, the ledger at 2",),
        ),
        Judgement(
            claim="the student can be opened",
            verdict="broken",
            wrong=("student/model.safetensors is missing",),
        ),
    ]
    assert list(steps_are_consecutive(evidence(events[2:]))) != []


def test_the_command_says_a_line_a_claim_and_a_sentence(tmp_path, capsys):
    run = honest_run(tmp_path)
    assert main([str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == [f"{'ok':14}  {claim}" for claim in CLAIMS]
    assert lines[-1] == (f"{run} (succeeded, step 12): nothing is lost: {len(CLAIMS)} claims hold.")


def test_the_command_names_the_first_thing_that_is_wrong(tmp_path, capsys):
    run = honest_run(tmp_path)
    edit("metrics.jsonl", lambda text: text.replace('"lag": 0', '"lag": 3'))(run)
    assert main([str(run)]) == 1
    lines = capsys.readouterr().out.splitlines()
    claim = "broken          no response was too old: metrics.jsonl, line 1: lag 3 above 0"
    assert f"{claim} (and 11 more, see --json)" in lines
    assert lines[-1] == f"{run} (succeeded, step 12): 1 of {len(CLAIMS)} claims broken."


def test_programs_get_json(tmp_path, capsys):
    run = honest_run(tmp_path)
    shutil.rmtree(run / "checkpoints")
    assert main([str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["run"], said["state"]) == (str(run), "succeeded")
    assert [claim["claim"] for claim in said["claims"]] == list(CLAIMS)
    sound = next(c for c in said["claims"] if c["claim"] == "checkpoints are sound")
    assert sound == {
        "claim": "checkpoints are sound",
        "verdict": "does not apply",
        "wrong": [],
        "why": f"there is none in {run / 'checkpoints'}",
    }


def test_a_folder_without_a_run_is_a_sentence_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is no run folder: it has no config.yaml" in capsys.readouterr().err


def test_the_command_needs_neither_ray_nor_torch(tmp_path):
    code = (
        "import sys; from orchestration.verify import main; code = main(sys.argv[1:]);"
        "heavy = {'ray', 'torch', 'transformers', 'vllm', 'deepspeed'} & set(sys.modules);"
        "print(heavy, file=sys.stderr); sys.exit(9 if heavy else code)"
    )
    command = [sys.executable, "-c", code, str(honest_run(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
