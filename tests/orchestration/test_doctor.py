"""`python -m orchestration.doctor`, as a user meets it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import ConfigError, DataError, DependencyError
from configs.load import load
from orchestration.checkups import Finding, guarded, worst
from orchestration.checkups_all import examine
from orchestration.doctor import line_of, main


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | environ
    return subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env=env
    )


def raising(error: Exception) -> Callable[[], Finding]:
    def check() -> Finding:
        raise error

    return check


def in_folder(folder: Path) -> list[str]:
    return [f"output={folder}/runs", f"cache={folder}/cache", "monitoring.port=0"]


def test_the_quickstart_is_looked_at_line_by_line_and_nothing_is_started(tmp_path):
    code = (
        "import sys; from orchestration.doctor import main; code = main(sys.argv[1:]);"
        "import ray; sys.exit(9 if ray.is_initialized() else code)"
    )
    done = run("-c", code, "quickstart", *in_folder(tmp_path), TORCH_EXTENSIONS_DIR=str(tmp_path))
    lines = done.stdout.splitlines()
    verdicts = {line[7:27].strip(): line.split()[0] for line in lines[:-1]}
    assert list(verdicts) == [
        *("python", "packages", "metrics port", "Ray address"),
        *("Ray authentication", "data", "models", "tokenizers"),
        *("earlier run", "folders", "disk", "temporary files"),
        *("cores", "memory", "GPUs", "shared memory"),
    ], done.stderr
    assert lines[-1].startswith("16 checks: ")
    # The machine of the tests may be busy, and its disks full; nothing else may be wrong here.
    problems = {name for name, verdict in verdicts.items() if verdict == "problem"}
    assert problems <= {"memory", "disk"}
    assert done.returncode == (3 if problems else 0)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_override_is_one_sentence_and_exit_code_2():
    done = run("-m", "orchestration.doctor", "quickstart", "learner.stepz=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown key 'learner.stepz'")
    assert len(done.stderr.splitlines()) == 1


def test_without_packages_it_says_so_in_one_sentence():
    done = run("-S", "-m", "orchestration.doctor")
    assert done.returncode == 3
    assert re.match(r"error: not installed: ray, torch, transformers and \d+ more", done.stderr)
    assert "make setup" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_problem_is_exit_code_3_and_json_holds_every_finding(tmp_path, capsys):
    missing = f"data.train={tmp_path}/none.jsonl"
    code = main([missing, "cluster.local=true", *in_folder(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (code, told["verdict"]) == (3, "problem")
    findings = {each["name"]: each for each in told["findings"]}
    assert findings["data"]["verdict"] == "problem"
    assert "none.jsonl does not exist" in findings["data"]["detail"]
    assert findings["python"]["fix"] == ""
    assert "shared memory" not in findings  # without Ray nobody asks for any


def test_warnings_alone_are_exit_code_0(monkeypatch, capsys):
    found = [Finding("a", "ok", "well"), Finding("b", "warning", "seen", "do this")]
    monkeypatch.setattr("orchestration.checkups_all.examine", lambda config, environ: found)
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok       a                   well",
        "warning  b                   seen; do this",
        "2 checks: no problems, 1 warning",
    ]


def test_a_machine_that_only_submits_is_not_measured(tmp_path):
    config = load("gpt2_dolly", [*in_folder(tmp_path), "cluster.address=127.0.0.1:1"])
    names = {finding.name: finding for finding in examine(config, {"RAY_AUTH_MODE": "disabled"})}
    assert names["Ray address"].verdict == "problem"
    assert names["machine"].detail == "not looked at: the cluster places the roles"
    assert not {"cores", "memory", "GPUs", "shared memory"} & set(names)


@pytest.mark.parametrize(
    ("error", "verdict", "detail", "fix"),
    [
        (DependencyError("no model; give one"), "problem", "no model", "give one"),
        (DataError("no file"), "problem", "no file", "mend the file, or name another with "),
        (ConfigError("a file is there"), "problem", "a file is there", "change that setting"),
        (ImportError("no ray"), "problem", "ImportError: no ray", "make setup"),
        (RuntimeError("operator nms\nmissing"), "problem", "operator nms missing", "make setup"),
        (OSError("unreadable"), "warning", "could not be checked (OSError: unreadable)", "read"),
    ],
)
def test_a_check_that_breaks_is_a_finding(error, verdict, detail, fix):
    finding = guarded("it", raising(error))
    assert (finding.name, finding.verdict) == ("it", verdict)
    assert detail in finding.detail
    assert fix in finding.fix


def test_an_error_of_ours_in_a_check_is_not_hidden():
    with pytest.raises(KeyError):
        guarded("it", raising(KeyError("typo")))


def test_the_gravest_verdict_counts():
    ok, warning = Finding("a", "ok", ""), Finding("b", "warning", "", "x")
    problem = Finding("c", "problem", "", "x")
    assert [worst([]), worst([ok, warning]), worst([warning, problem, ok])] == [
        "ok",
        "warning",
        "problem",
    ]


def test_whatever_is_not_well_comes_with_advice():
    with pytest.raises(AssertionError):
        Finding("a", "problem", "seen")


def test_a_long_finding_is_cut_into_lines_on_a_terminal_and_keeps_to_its_column():
    finding = Finding("disk", "problem", "word " * 20 + "end", "act")
    lines = line_of(finding, width=80).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("problem  disk                word word")
    assert lines[2] == " " * 29 + "end; act"
    assert "\x1b[" in line_of(finding, width=80, colour=True)
