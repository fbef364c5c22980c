"""Where a model's files are, whether they are whole, and a fingerprint of what they hold."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open

from configs.errors import DependencyError

UNREADABLE = (AttributeError, LookupError, OSError, TypeError, ValueError, StrictDataclassError)
"""What transformers raises for a description that does not hold what it should."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# Not only config.json: the id that ends a response may be named in any of these.
_DESCRIPTIONS = ("config.json", "generation_config.json", "tokenizer*.json", "*.py")


def model_folder(model: str, *, revision: str | None = None) -> Path:
    """Return the folder of ``model``: itself, or a hub model's snapshot on this machine.

    Raises DependencyError when there is no such model, or its configuration or weights are
    missing, damaged or cut off. Of weights in safetensors the headers are read, no more.
    """
    require_model(model)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _snapshot(model, revision)
    for what, files in (
        ("config.json", list(folder.glob("config.json"))),
        ("weights (*.safetensors or *.bin)", weight_files(folder)),
    ):
        if not files:
            raise DependencyError(
                f"model folder {folder} holds no {what}; "
                "give a complete model in Hugging Face layout"
            )
    _check_description(folder)
    _check_shards(folder)
    for path in weight_files(folder):
        _check_whole(path)
    return folder


def require_model(model: str) -> None:
    """Raise DependencyError where ``model`` is no folder, and no hub's name for a model either."""
    path = Path(model).expanduser()
    if path.is_dir() or (_HUB_NAME.fullmatch(model) and not path.exists()):
        return
    state = "is a file" if path.exists() else "does not exist"
    raise DependencyError(
        f"model folder {path.absolute()} {state}: give a folder in Hugging Face layout, or a hub "
        "model's name"
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that would be loaded from ``folder``, sorted by name."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


def model_fingerprint(folder: Path, *, dtype: str) -> str:
    """Return 32 hexadecimal digits that change whenever a response or its log p might.

    Hashes the content of the configurations, tokenizer, remote code and weights of ``folder``,
    and the number format they are served in; about a second a gigabyte.
    """
    digest = hashlib.blake2b(dtype.encode(), digest_size=16)
    described = {path for pattern in _DESCRIPTIONS for path in folder.glob(pattern)}
    for path in [*sorted(described), *weight_files(folder)]:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        digest.update(f"\n{path.name} {content}".encode())
    return digest.hexdigest()


def _check_description(folder: Path) -> None:
    for path in (folder / "config.json", folder / "generation_config.json"):
        described = _json(path) if path.exists() else {}
        if not isinstance(described, dict):
            raise DependencyError(
                f"model folder {folder}: {path.name} holds a {type(described).__name__} where a "
                "JSON object is expected; copy it from the model again"
            )


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():
        return
    try:
        named = sorted(set(_json(index)["weight_map"].values()))
    except (AttributeError, LookupError, TypeError):
        raise DependencyError(
            f"model folder {folder}: {index.name} has no weight_map; copy it from the model again"
        ) from None
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise DependencyError(
            f"model folder {folder} lacks {missing[0]}, one of {len(named)} weight files that "
            f"{index.name} names; copy the whole model"
        )


def _check_whole(path: Path) -> None:
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        with path.open("rb") as file:
            is_pointer = file.read(24) == b"version https://git-lfs."
        advice = "run `git lfs pull` where it was cloned" if is_pointer else "copy it again"
        raise DependencyError(
            f"weight file {path} is damaged or cut off ({error}); {advice}"
        ) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DependencyError(
            f"model folder {path.parent}: {path.name} cannot be read ({error}); copy it from the "
            "model again"
        ) from None


def _snapshot(model: str, revision: str | None) -> Path:
    patterns = ["*.json", "*.py", "*.model", "*.txt", "*.safetensors"]
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
        if not weight_files(folder):
            patterns[-1] = "*.bin"
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DependencyError(
            f"model {model} is neither a folder nor a hub model that can be had ({reason}); "
            "give the path of a folder in Hugging Face layout"
        ) from error
    return folder
