"""What the learner minimises. A union keyed on ``type``; one section each in `objectives/`."""

from typing import Annotated

from pydantic import Field

from configs.objectives.base import Need
from configs.objectives.divergence import AklConfig, GkdConfig, KdConfig, ReverseKlConfig
from configs.objectives.policy_gradient import MiniLlmConfig, OpdConfig
from configs.objectives.preference import (
    CpoConfig,
    DadpoConfig,
    DdpoConfig,
    DpkdConfig,
    IpoConfig,
    PladConfig,
    SimpoConfig,
)
from configs.objectives.supervised import SeqKdConfig, SftConfig

__all__ = ["DpkdConfig", "Need", "ObjectiveConfig", "SftConfig"]

ObjectiveConfig = Annotated[
    DpkdConfig
    | IpoConfig
    | CpoConfig
    | SimpoConfig
    | PladConfig
    | DadpoConfig
    | DdpoConfig
    | SftConfig
    | KdConfig
    | SeqKdConfig
    | ReverseKlConfig
    | GkdConfig
    | AklConfig
    | MiniLlmConfig
    | OpdConfig,
    Field(discriminator="type"),
]
