"""How a run shows itself."""

from typing import Literal

from pydantic import Field, field_validator

from configs.base import Section

TrackerName = Literal["tensorboard", "wandb", "trackio"]


class TrackingConfig(Section):
    """Experiment trackers that are told every step and evaluation, beside the run folder."""

    to: tuple[TrackerName, ...] = ()
    """Any of `tensorboard` (`RUN/tensorboard`), `wandb` (Weights & Biases, `RUN/wandb`) and
    `trackio` (its own local folder); their packages come with the extra `trackers`."""
    project: str = Field(default="dpkd", min_length=1)
    """Project of W&B and trackio; the run's name is the run's."""
    wandb_mode: Literal["offline", "online"] = "offline"
    """`offline`: files only, for `wandb sync` later; `online`: needs `wandb login` before."""

    @field_validator("to")
    @classmethod
    def _once_each(cls, names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        return tuple(dict.fromkeys(names))


class MonitoringConfig(Section):
    """Prometheus endpoint, logs, progress."""

    host: str = "127.0.0.1"
    """Address the exporter listens on; loopback unless said. Whoever reaches it reads the metrics,
    and on the live page the latest samples. Parts on other machines listen on it, too: to have them
    scraped it must be one that others reach, such as 0.0.0.0."""
    port: int = Field(default=9108, ge=0, le=65535)
    """Port of the exporter; 0: any free one. A port in use is replaced, with a warning."""
    role_port: int = Field(default=9110, ge=0, le=65500)
    """Port of the parts' own exporters, on the same address: a sampler's is this one, a teacher's
    10 further, a learner rank's 20 further; several on one machine take the next free ones; 0: any
    free one."""
    timeline: bool = False
    """Write `timeline.json`: who did what when, for Perfetto or chrome://tracing."""
    progress: bool = True
    """Show progress: a live table on a terminal, plain lines elsewhere."""
    log_every: int = Field(default=10, ge=1)
    """Steps between plain progress lines."""
    report: bool = True
    """Write `report.html` when the run ends, well or not."""
    tracking: TrackingConfig = TrackingConfig()
