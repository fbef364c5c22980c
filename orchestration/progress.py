"""What a person sees of a run: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from configs.monitoring import MonitoringConfig

_FIELDS = (
    ("loss", "loss", "{:.3f}"),
    ("reverse_kl_per_token", "reverse KL/token", "{:.3f}"),
    ("reward_margin", "reward margin", "{:+.3f}"),
    ("tokens_per_second", "tok/s", "{:,.0f}"),
    ("depth", "queue", "{:.0f}"),
    ("lag", "lag", "{:.0f}"),
)
"""Statistic, its title, its format; those that a step lacks are left out."""


class Progress:
    """The interface, and what all displays know. This one shows announcements only."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._name = ""
        self._total = 0
        self._step = 0
        self._began = clock()
        self._tokens = 0.0
        self._values: dict[str, float] = {}

    def announce(self, text: str) -> None:
        """Say something that is worth a line of its own: a pause, a result."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps; ends the one before."""
        self._end_stage()
        self._name, self._total, self._step = name, total, 0
        self._began, self._tokens, self._values = self._clock(), 0.0, {}
        self._show(stage_began=True)

    def update(self, values: Mapping[str, float]) -> None:
        """Show a step: ``step``, and any of the statistics. ``tokens`` gives the rate."""
        self._step = int(values.get("step", self._step + 1))
        self._tokens += values.get("tokens", 0.0)
        self._values = dict(values)
        if self._tokens and self._elapsed() > 0:
            self._values.setdefault("tokens_per_second", self._tokens / self._elapsed())
        self._show()

    def close(self) -> None:
        """End the display and leave the terminal as it was; may be called twice."""
        self._end_stage()
        self._name = ""

    def _end_stage(self) -> None:
        if self._name:
            self.announce(
                f"{self._name}: {self._step}/{self._total} steps in {_span(self._elapsed())}"
            )

    def _show(self, *, stage_began: bool = False) -> None:
        """Bring the display up to date."""

    def _elapsed(self) -> float:
        return self._clock() - self._began

    def _eta(self) -> str:
        if not self._step:
            return "…"
        return _span(self._elapsed() / self._step * max(0, self._total - self._step))

    def _cells(self) -> list[tuple[str, str]]:
        """Return (title, value) pairs of the newest step."""
        known = [(key, title, form) for key, title, form in _FIELDS if key in self._values]
        shown = [(title, form.format(self._values[key])) for key, title, form in known]
        return [("step", f"{self._step}/{self._total}"), *shown, ("ETA", self._eta())]


class PlainProgress(Progress):
    """One line every ``every`` steps, without control characters: for files and pipes."""

    def __init__(
        self, stream: TextIO, *, every: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream, clock=clock)
        self._every = every

    def _show(self, *, stage_began: bool = False) -> None:
        if stage_began:
            self.announce(f"{self._name}: {self._total} steps")
        elif self._step in (1, self._total) or self._step % self._every == 0:
            cells = "  ".join(f"{title} {value}" for title, value in self._cells())
            self.announce(f"{self._name}  {cells}")


class LiveProgress(Progress):
    """A small table at the foot of the terminal; announcements scroll by above it."""

    def __init__(
        self,
        stream: TextIO,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, clock=clock)
        self._console = console or Console(file=stream)
        self._live: Live | None = None

    def announce(self, text: str) -> None:
        """See ``Progress.announce``."""
        self._console.print(Text(text), soft_wrap=True)

    def _show(self, *, stage_began: bool = False) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()

    def _end_stage(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        super()._end_stage()

    def _render(self) -> Table:
        table = Table(title=Text(self._name), title_justify="left", pad_edge=False)
        cells = self._cells()
        for title, _ in cells:
            table.add_column(title, justify="right", no_wrap=True)
        table.add_row(*(value for _, value in cells))
        return table


def make_progress(config: MonitoringConfig, stream: TextIO) -> Progress:
    """Return the display that fits ``stream``: live on a terminal, plain lines elsewhere.

    With ``monitoring.progress`` off only announcements are shown: pauses and results.
    """
    if not config.progress:
        return Progress(stream)
    if stream.isatty() and not Console(file=stream).is_dumb_terminal:
        return LiveProgress(stream)
    return PlainProgress(stream, every=config.log_every)


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
