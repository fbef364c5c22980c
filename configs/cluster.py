"""Where the run executes: Ray, resources, time-outs."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from configs.base import Section


class RoleResources(Section):
    """What Ray reserves for one actor of a role."""

    cpus: float = Field(default=0.5, ge=0)
    """CPU share; a reservation, not a limit."""
    gpus: float = Field(default=0.0, ge=0)
    """GPU share."""
    custom: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources, such as ``{"sampler": 1}``."""


class ClusterConfig(Section):
    """The cluster and its time-outs."""

    address: str | None = None
    """Ray address; None: the cluster that this process was submitted to, else a local one."""
    local: bool = False
    """Run every role in this process, without Ray: for debuggers and tests."""
    local_cpus: int | None = Field(default=None, ge=1)
    """Logical CPUs of a local Ray; None: the machine's cores."""
    auth: Literal["token", "disabled"] | None = None
    """Ray's token authentication; None: as the environment says, token for a local Ray."""
    sampler: RoleResources = RoleResources()
    """Resources of one student sampler."""
    teacher: RoleResources = RoleResources()
    """Resources of one teacher server."""
    learner: RoleResources = RoleResources()
    """Resources of one learner rank."""
    offline: RoleResources = RoleResources()
    """Resources of the sampler that keeps the initial weights, where negatives want one."""
    reference: RoleResources = RoleResources()
    """Resources of the scorer by the initial student, where the objective wants one."""
    start_timeout_seconds: float = Field(default=600.0, gt=0)
    """Longest wait for an actor to be placed and to come up, its model loaded."""
    call_timeout_seconds: float = Field(default=600.0, gt=0)
    """Longest wait for one answer of an actor."""

    def joined(self, environ: Mapping[str, str]) -> str | None:
        """Return the address of the cluster that a run joins; None: it starts its own, or none."""
        address = self.address or environ.get("RAY_ADDRESS") or "local"
        return None if self.local or address == "local" else address
