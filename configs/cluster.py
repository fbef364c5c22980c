"""Where the run executes: Ray, resources, time-outs."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from configs.base import Section

RESERVED = {
    "CPU": "set cpus beside custom",
    "GPU": "set gpus beside custom",
    "memory": "leave it out",
    "object_store_memory": "leave it out",
    "bundle": "take another name",
}
"""Names that Ray does not take for a custom resource (``resources_from_ray_options``), and what to
do instead."""
WHOLE = ("neuron_cores", "TPU", "NPU", "HPU", "RBLN", "FURIOSA", "TTNPU", "MBLT")
"""Custom resources that Ray hands out by the device, as it does GPUs: above 1, whole ones only
(``custom_unit_instance_resources``). Any other may be 1.5."""
LEAST = 0.0001
"""The least share of anything that Ray can count."""


class RoleResources(Section):
    """What Ray reserves for one actor of a role: amounts that it would refuse are refused here."""

    cpus: float = Field(default=0.5, ge=0)
    """CPU share; a reservation, not a limit."""
    gpus: float = Field(default=0.0, ge=0)
    """GPU share; above 1 a whole number."""
    custom: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources, such as ``{"sampler": 1}``."""

    @field_validator("cpus", "gpus")
    @classmethod
    def _may_be_reserved(cls, amount: float, info: ValidationInfo) -> float:
        if wrong := _wrong(amount, whole=info.field_name == "gpus"):
            raise ValueError(wrong)
        return amount

    @field_validator("custom")
    @classmethod
    def _may_be_named(cls, custom: dict[str, float]) -> dict[str, float]:
        for name, amount in custom.items():
            if name in RESERVED or not name:
                instead = RESERVED.get(name, "give it one")
                raise ValueError(f"{name!r} is no name of a custom resource: {instead}")
            if wrong := _wrong(amount, whole=name in WHOLE):
                raise ValueError(f"{name}: {wrong}")
        return custom


def _wrong(amount: float, *, whole: bool) -> str | None:
    """Say why Ray reserves no such amount; None: it does."""
    if amount < 0:
        return f"an amount from 0 on is expected, got {amount:g}"
    if 0 < amount < LEAST:
        return f"Ray counts no less than {LEAST:g}, got {amount:g}"
    if whole and amount > 1 and not amount.is_integer():
        return f"above 1 only whole devices are reserved, got {amount:g}"
    return None


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
