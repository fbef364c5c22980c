"""Objectives that learn from text alone: SFT on the data, SeqKD on the teacher's responses."""

from typing import ClassVar, Literal

from configs.objectives.base import Objective, Sequences


class SftConfig(Objective):
    """Supervised fine-tuning on the gold responses; starts no sampler and no teacher."""

    of: ClassVar[Sequences] = "gold"

    type: Literal["sft"] = "sft"


class SeqKdConfig(Objective):
    """Sequence-level distillation: supervised learning of y_t (Kim & Rush 2016)."""

    of: ClassVar[Sequences] = "teacher"

    type: Literal["seqkd"] = "seqkd"
