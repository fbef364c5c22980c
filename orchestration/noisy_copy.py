"""A copy of a model with Gaussian noise added to its weights (DPKD, Figure 2)."""

import shutil
from pathlib import Path

from actors.model_folder import model_folder
from configs.errors import DependencyError


def write_noisy_copy(model: str, folder: Path, *, sigma: float, seed: int) -> None:
    """Write ``model`` into ``folder``, every weight w + sigma · std(tensor) · N(0, 1).

    The noise depends on ``seed`` and the tensors alone: for two sigmas it has one direction and
    two lengths. Raises DependencyError for a model that is not kept in safetensors.
    """
    import torch
    from safetensors.torch import load_file, save_file

    source = model_folder(model)
    if not list(source.glob("*.safetensors")):
        raise DependencyError(
            f"model {source} has no *.safetensors to add noise to; convert it first"
        )
    generator = torch.Generator().manual_seed(seed)
    for path in sorted(file for file in source.iterdir() if file.is_file()):
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
            continue
        tensors = load_file(path)
        for name in sorted(tensors):
            weight = tensors[name]
            if weight.is_floating_point():
                noise = torch.randn(weight.shape, generator=generator)
                scale = sigma * weight.float().std(correction=0)
                tensors[name] = (weight.float() + scale * noise).to(weight.dtype)
        save_file(tensors, folder / path.name, metadata={"format": "pt"})
