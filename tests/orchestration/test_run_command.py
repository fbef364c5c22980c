"""The command line, as a newcomer meets it: help, dry run, and the errors of a first try."""

import os
import subprocess
import sys

import pytest


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestration.run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_shows_examples_and_recipes():
    done = _run("--help")
    assert done.returncode == 0
    assert "ray job submit" in done.stdout
    assert "gpt2_dolly" in done.stdout


@pytest.mark.parametrize("recipe", ["quickstart", "e2e", "gpt2_dolly"])
def test_a_dry_run_of_every_recipe_prints_configuration_and_plan(recipe):
    done = _run(recipe, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"name: {recipe}" in done.stdout
    assert "plan:" in done.stdout


def test_a_dry_run_imports_nothing_heavy():
    code = (
        "import sys; from orchestration.run import main; main(['quickstart', '--dry-run']);"
        "heavy = {'torch', 'ray', 'vllm', 'deepspeed', 'transformers'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["nosuch"], 2, "quickstart"),
        (["learner.stepz=3"], 2, "learner.steps"),
        (["learner.steps=many"], 2, "learner.steps"),
        (["student.model=x"], 2, "student.make"),
        (["learner.ranks=3"], 2, "multiple of learner.ranks"),
        (["quickstart", "learner.steps"], 2, "learner.steps"),
    ],
)
def test_a_beginners_mistake_gets_one_line_that_says_what_to_do(arguments, exit_code, message):
    done = _run(*arguments, "--dry-run")
    assert done.returncode == exit_code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: ")


def test_a_missing_data_file_is_named_before_anything_heavy_starts(tmp_path):
    done = _run("e2e", f"data.train={tmp_path}/none.jsonl", f"output={tmp_path}/runs")
    assert done.returncode == 4
    assert "none.jsonl" in done.stderr
    report = (tmp_path / "runs" / "e2e" / "report.html").read_text()
    assert "failed, dpkd, 0 of 150 steps" in report
    assert f"{tmp_path}/none.jsonl" in report


@pytest.mark.parametrize("command", [["run", "quickstart"], ["compare", "quickstart_methods"]])
def test_a_reader_that_goes_away_is_no_error(command):
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", f"orchestration.{command[0]}", command[1], "--dry-run"]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
