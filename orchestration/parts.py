"""Everything that a run is made of, by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.prompts import PromptSource
from orchestration.learner_group import LearnerGroup
from orchestration.ledger import Ledger
from orchestration.recorder import Recorder
from orchestration.roles import Role
from orchestration.supervisor import Supervisor
from orchestration.weight_sync import WeightSync


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything a run is made of; ``orchestration.assembly`` builds it."""

    prompts: PromptSource
    samplers: Sequence[Role]
    teachers: Sequence[Role]
    offline: Role | None = None
    """The sampler that keeps the initial weights; None: no pair is drawn offline."""
    reference: Role | None = None
    """Scores by the initial student; None: the objective does not ask it."""
    queue: Role
    learner: LearnerGroup
    sync: WeightSync
    ledger: Ledger
    recorder: Recorder
    supervisor: Supervisor
