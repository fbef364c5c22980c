"""AdamW, and the course of its learning rate."""

import math

import torch
from torch import nn

from configs.learner import LearnerConfig


def learning_rate_factor(step: int, config: LearnerConfig) -> float:
    """Return the share of the peak learning rate at 0-based ``step``.

    Linear warm-up that ends at the peak, then a cosine down to ``min_learning_rate_ratio``.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    span = max(1, config.steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    floor = config.min_learning_rate_ratio
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def schedule(
    optimizer: torch.optim.Optimizer, config: LearnerConfig
) -> torch.optim.lr_scheduler.LambdaLR:
    """Give every step the learning rate of ``learning_rate_factor``."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, config)
    )


def adamw(scorer: nn.Module, config: LearnerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: norms and biases have no scale to be kept small."""
    parameters = [p for p in scorer.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.adam_betas,
    )
