"""A wheel must hold every package, and every recipe and plan."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_packaged() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("configs", "actors", "learner", "orchestration")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(SETTINGS["packages"]) == found


def test_every_yaml_file_of_configs_is_packaged() -> None:
    configs = ROOT / "configs"
    packaged = {
        path for pattern in SETTINGS["package-data"]["configs"] for path in configs.glob(pattern)
    }
    assert packaged == set(configs.rglob("*.yaml"))


def test_every_template_is_packaged() -> None:
    orchestration = ROOT / "orchestration"
    packaged = {
        path
        for pattern in SETTINGS["package-data"]["orchestration"]
        for path in orchestration.glob(pattern)
    }
    assert packaged == set(orchestration.rglob("*.html")) != set()
