"""Where a model's files are, and a fingerprint of what they hold."""

import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download

from configs.errors import DependencyError

# Not only config.json: the id that ends a response may be named in any of these.
_DESCRIPTIONS = ("config.json", "generation_config.json", "tokenizer*.json", "*.py")


def model_folder(model: str, *, revision: str | None = None) -> Path:
    """Return the folder of ``model``: itself, or a hub model's snapshot on this machine.

    Raises DependencyError when there is no such model, or it holds no configuration or no
    weights.
    """
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
    return folder


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
