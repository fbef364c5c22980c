"""Machines of a simulation: cores that busy processes share, and lines that serve one at a time."""

import asyncio
from dataclasses import dataclass, field


@dataclass
class Cores:
    """So many cores: each busy process gets one, and when there are more they share alike."""

    count: float
    _left: dict[asyncio.Event, float] = field(default_factory=dict)
    """Core-seconds that each piece of work under way still needs."""
    _looked: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    async def work(self, seconds: float) -> None:
        """Take ``seconds`` of one core: longer, where the cores are short."""
        if seconds <= 0:
            return
        done = asyncio.Event()
        self._pass()
        self._left[done] = seconds
        self._wake_when_next_is_done()
        await done.wait()

    def _pass(self) -> None:
        """Book the time since the last look."""
        now = asyncio.get_running_loop().time()
        worked = (now - self._looked) * self._speed()
        self._looked = now
        for piece in self._left:
            self._left[piece] -= worked

    def _speed(self) -> float:
        return min(1.0, self.count / len(self._left)) if self._left else 0.0

    def _wake_when_next_is_done(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if self._left:
            loop = asyncio.get_running_loop()
            soonest = max(0.0, min(self._left.values())) / self._speed()
            self._timer = loop.call_later(soonest, self._finish)

    def _finish(self) -> None:
        self._pass()
        for piece in [piece for piece, left in self._left.items() if left <= 1e-9]:
            del self._left[piece]
            piece.set()
        self._wake_when_next_is_done()


@dataclass
class Line:
    """Serves one after the other: a thread of the driver's, a queue's, a network card."""

    busy_seconds: float = 0.0
    served: int = 0
    _free: float = 0.0

    async def serve(self, seconds: float) -> None:
        """Wait for one's turn, and for one's own service."""
        loop = asyncio.get_running_loop()
        self._free = max(self._free, loop.time()) + seconds
        self.busy_seconds += seconds
        self.served += 1
        if (wait := self._free - loop.time()) > 0:
            await asyncio.sleep(wait)
