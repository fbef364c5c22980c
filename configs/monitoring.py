"""How a run shows itself."""

from pydantic import Field

from configs.base import Section


class MonitoringConfig(Section):
    """Prometheus endpoint, logs, progress."""

    host: str = "127.0.0.1"
    """Address the exporter listens on; loopback unless said. Whoever reaches it reads the metrics,
    and on the live page the latest samples."""
    port: int = Field(default=9108, ge=0, le=65535)
    """Port of the exporter; 0: any free one. A port in use is replaced, with a warning."""
    progress: bool = True
    """Show progress: a live table on a terminal, plain lines elsewhere."""
    log_every: int = Field(default=10, ge=1)
    """Steps between plain progress lines."""
    report: bool = True
    """Write `report.html` when the run ends, well or not."""
