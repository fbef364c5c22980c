"""What the learner minimises. A union keyed on ``type``."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from configs.base import Section

Need = Literal["gold", "teacher_response", "student_response", "teacher_logprobs"]
"""What an objective asks of the pipeline; only the roles that provide it are started."""


class DpkdConfig(Section):
    """Direct Preference Knowledge Distillation (arXiv 2406.19774, Eq 8 and 9)."""

    needs: ClassVar[frozenset[Need]] = frozenset(
        {"teacher_response", "student_response", "teacher_logprobs"}
    )

    type: Literal["dpkd"] = "dpkd"
    level: Literal["sequence"] = "sequence"
    """Whether a preference is over whole responses (the paper's Eq 8 and 9)."""
    beta: float = Field(default=1.0, gt=0)
    """Inverse strength of the KL constraint, per nat; the paper prints no value."""
    length_normalised: bool = True
    """True: Eq 9, each side divided by its own number of tokens; False: Eq 8."""
    lm_weight: float = Field(default=0.0, ge=0)
    """Lambda, the weight of the language-model loss on the corpus (paper, section 3.1)."""


class SftConfig(Section):
    """Supervised fine-tuning on the gold responses; starts no sampler and no teacher."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gold"})

    type: Literal["sft"] = "sft"
    lm_weight: float = Field(default=0.0, ge=0)
    """Weight of an additional language-model loss on the corpus."""


ObjectiveConfig = Annotated[DpkdConfig | SftConfig, Field(discriminator="type")]
