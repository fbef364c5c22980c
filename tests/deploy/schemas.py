"""Whether manifests are what the API servers take: Kubernetes' kinds, and Ray's by definition."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from tests.deploy.manifests import Manifest

VERSION = "1.33"
CRDS = Path(os.environ.get("KUBERAY_CRDS", "/nonexistent"))
"""KubeRay's custom resource definitions; without them our rules alone check Ray's kinds."""
FOREIGN = ("monitoring.coreos.com/",)
"""Kinds whose definitions are not at hand."""


_FOUND: dict[str, list[str]] = {}
"""What was found already, by manifest."""


def schema_complaints(manifest: Manifest) -> list[str]:
    """What an API server would refuse; unknown fields, which it drops in silence, included."""
    content = repr(manifest)
    if content not in _FOUND:  # planted errors lie in one manifest of many
        _FOUND[content] = _complaints(manifest)
    return _FOUND[content]


def _complaints(manifest: Manifest) -> list[str]:
    if not isinstance(manifest.get("apiVersion"), str):
        return [f"{manifest['kind']} has no apiVersion"]
    if manifest["apiVersion"].startswith("ray.io/"):
        return _ray(manifest) if CRDS.is_dir() else []
    if manifest["apiVersion"].startswith(FOREIGN):
        return []
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return [f"Kubernetes {VERSION} has no {manifest['kind']} of {manifest['apiVersion']}"]
    except kubernetes_validate.ValidationError as error:
        return [f"{manifest['kind']} {'.'.join(map(str, error.path))}: {error.message}"]
    return []


def _ray(manifest: Manifest) -> list[str]:
    validator = Draft202012Validator(_strict_schema(manifest["kind"]))
    return [
        f"{manifest['kind']} {error.json_path}: {error.message}"
        for error in validator.iter_errors(manifest)
    ]


@cache
def _strict_schema(kind: str) -> Any:
    (definition,) = (
        loaded
        for path in CRDS.glob("*.yaml")
        if (loaded := yaml.safe_load(path.read_text()))["spec"]["names"]["kind"] == kind
    )
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    schema = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _strict(schema: Any) -> Any:
    """Turn OpenAPI's dialect into JSON Schema that lets no unknown field through."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if strict.pop("x-kubernetes-int-or-string", False):
        strict.pop("type", None)
        strict["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    keeps = strict.pop("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(strict.get("properties"), dict) and not keeps:
        strict.setdefault("additionalProperties", False)
    return strict
