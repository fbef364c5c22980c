"""The doctor's look at the software: Python and packages."""

import tomllib

import pytest

from orchestration.checkups_software import (
    LOCK,
    NEEDED,
    SUPPORTED,
    check_packages,
    check_python,
    installed_version,
)


def everything(**changes: str | None) -> dict[str, str | None]:
    return {name: "1.0" for name in NEEDED} | changes


@pytest.mark.parametrize(
    ("running", "verdict"),
    [((3, 10), "problem"), ((3, 11), "ok"), ((3, 12), "warning"), ((3, 13), "problem")],
)
def test_python_is_held_against_the_versions_that_the_code_is_for(running, verdict):
    assert check_python(running).verdict == verdict


def test_versions_and_packages_are_those_of_pyproject():
    project = tomllib.loads((LOCK.parent.parent / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    names = {each.split("=")[0].split(">")[0].split("[")[0] for each in asked}
    assert set(NEEDED) == names
    assert project["requires-python"] == ">=3.11,<3.13"
    assert SUPPORTED == ((3, 11), (3, 12))


def test_packages_as_pinned_are_ok_whatever_their_build(tmp_path):
    (tmp_path / "lock.txt").write_text("# pinned\nray==2.60.0\n\ntorch==2.13.0  # any build\n")
    installed = everything(ray="2.60.0", torch="2.13.0+cpu")
    finding = check_packages(tmp_path / "lock.txt", installed.get)
    assert (finding.verdict, finding.detail) == ("ok", "2 as pinned in lock.txt")


def test_another_version_and_a_missing_extra_are_warnings_that_name_them(tmp_path):
    (tmp_path / "lock.txt").write_text("ray==2.60.0\ntorch==2.13.0\nyarl==1.25.1\n")
    finding = check_packages(tmp_path / "lock.txt", everything(ray="2.60.0", torch="2.1.0").get)
    assert finding.verdict == "warning"
    assert "torch 2.1.0 (pinned: 2.13.0), yarl missing (pinned: 1.25.1)" in finding.detail
    assert "make setup" in finding.fix


def test_a_missing_package_that_is_imported_is_a_problem(tmp_path):
    finding = check_packages(tmp_path / "none.txt", everything(deepspeed=None).get)
    assert (finding.verdict, finding.detail) == ("problem", "not installed: deepspeed")


def test_without_a_lock_file_presence_is_what_counts(tmp_path):
    finding = check_packages(tmp_path / "none.txt", everything().get)
    assert finding.verdict == "ok"
    assert "no lock file" in finding.detail


def test_torchvision_is_warned_of_beside_the_cpu_build_alone(tmp_path):
    beside_cpu = check_packages(tmp_path / "none.txt", everything(torchvision="0.28").get)
    assert beside_cpu.verdict == "warning"
    assert beside_cpu.fix == "run `pip uninstall torchvision`"
    beside_gpu = check_packages(
        tmp_path / "none.txt", everything(torchvision="0.28", vllm="0.32.0").get
    )
    assert beside_gpu.verdict == "ok"


def test_the_version_of_a_package_is_that_of_its_metadata():
    assert installed_version("pytest") == pytest.__version__
    assert installed_version("no-such-package") is None
