"""From a plan file to a checked PlanConfig. Imports nothing heavy."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from configs.complaints import complaint
from configs.errors import ConfigError
from configs.keys import nearest_key, unknown_key
from configs.plan import MethodConfig, NoiseConfig, PlanConfig
from configs.yaml_files import named_file, names_in, read_mapping

PLANS = Path(__file__).parent / "plans"
"""Folder of the plans that can be named without a path."""


def load_plan(plan: str) -> PlanConfig:
    """Return the plan of a file, or of a name in ``configs/plans``.

    What the overrides say is checked where runs are made of them.
    Raises ConfigError, one line that names the file, for anything that is wrong with the plan.
    """
    path = named_file("plan", plan, PLANS)
    tree = read_mapping("plan", path)
    try:
        _check_keys(tree)
        return PlanConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"plan {path}: {complaint(error, PlanConfig)[1]}") from None
    except ConfigError as error:
        raise ConfigError(f"plan {path}: {error}") from None


def plan_names() -> list[str]:
    """Return the names of the plans that come with the project."""
    return names_in(PLANS)


def _check_keys(tree: dict[str, Any]) -> None:
    """Complain of the first unknown key, and of a method that is no section, by name."""
    _check_known(tree, PlanConfig, "")
    methods = tree.get("methods")
    if isinstance(methods, dict):
        # A method without overrides may be written as a bare name: the recipe as it stands.
        tree["methods"] = {name: {} if m is None else m for name, m in methods.items()}
        for name, method in tree["methods"].items():
            _check_method(name, method)
    if isinstance(tree.get("grid"), dict):
        tree["grid"] = {key: _named_points(axis) for key, axis in tree["grid"].items()}
    if isinstance(tree.get("noise"), dict):
        _check_known(tree["noise"], NoiseConfig, "noise.")


def _check_method(name: Any, method: Any) -> None:
    if not isinstance(method, dict):
        raise ConfigError(
            f"methods.{name}: a section with the key overrides is expected, got {method!r}"
        )
    _check_known(method, MethodConfig, f"methods.{name}.")
    try:
        MethodConfig.model_validate(method)
    except ValidationError as error:
        raise ConfigError(f"methods.{name}.{complaint(error, MethodConfig)[1]}") from None


def _named_points(axis: Any) -> Any:
    """Take a point's name as text: a policy lag of ``4`` is one."""
    return {str(name): point for name, point in axis.items()} if isinstance(axis, dict) else axis


def _check_known(tree: dict[str, Any], section: type[BaseModel], prefix: str) -> None:
    wrong = unknown_key(tree, section)
    if wrong is not None:
        near = nearest_key(str(wrong), section)
        raise ConfigError(
            f"unknown key '{prefix}{wrong}': the nearest known key is '{prefix}{near}'"
        )
