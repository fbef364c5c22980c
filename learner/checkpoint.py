"""Writing models and engine states to disk: whole or not at all, and nothing unpickled blindly."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to, and put it in ``folder``'s place if all went well.

    Files are flushed to disk before the swap. After an error or a crash ``folder`` holds what
    it held before.
    """
    folder = folder.absolute()
    staging = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        for path in [*staging.rglob("*"), staging]:
            _flush(path)
        _swap(staging, folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(staging: Path, folder: Path) -> None:
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_model(model: PreTrainedModel, state: dict[str, Tensor], folder: Path) -> None:
    """Write ``model`` with the weights ``state`` in Hugging Face layout, atomically."""
    with replace_folder(folder) as staging:
        model.save_pretrained(staging, state_dict=state)


class SafeCheckpointEngine:
    """DeepSpeed's checkpoint engine, but for its loader, which would run any pickle.

    Tensors, numbers, strings and containers load, and the few classes of DeepSpeed's that
    its states hold.
    """

    def __init__(self, inner: Any, allowed: list[Any]) -> None:
        """Wrap ``inner``; ``allowed`` lists the classes that may be unpickled."""
        self._inner = inner
        self._allowed = allowed

    def __getattr__(self, name: str) -> Any:
        """Everything but ``load`` is the wrapped engine's."""
        return getattr(self._inner, name)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Load one file of a checkpoint without running code that it may carry."""
        with torch.serialization.safe_globals(self._allowed):
            return torch.load(path, map_location=map_location, weights_only=True)
