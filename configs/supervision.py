"""What is done about parts that die, hang or fail."""

from pydantic import Field

from configs.base import Section


class SupervisionConfig(Section):
    """Restarts of parts in Ray actors; a run in one process (``cluster.local``) has none."""

    max_restarts: int = Field(default=5, ge=0)
    """Restarts of one part in a run, before the run goes on without it or stops."""
    backoff_seconds: float = Field(default=1.0, ge=0)
    """Wait before a part's first restart; doubled at each further one, up to a minute; and before
    another newcomer is tried where one did not come up, up to ten minutes."""
    min_samplers: int = Field(default=1, ge=1)
    """Samplers with which the run still goes on, where the others cannot be restarted."""
    health_every_seconds: float = Field(default=5.0, gt=0)
    """Time between two questions whether a part is alive."""
    health_timeout_seconds: float = Field(default=60.0, gt=0)
    """A part that has not said for so long that it is alive is killed, and restarted."""
    poison_after: int = Field(default=3, ge=1)
    """Deaths of a sampler or teacher over one prompt, before that prompt is given up."""
