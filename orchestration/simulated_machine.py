"""Machines of a simulation: cores that busy processes share, and lines that serve one at a time."""

import asyncio
import math
from dataclasses import dataclass, field


@dataclass
class Cores:
    """So many cores: each busy process gets one, and when there are more they share alike."""

    count: float
    crowding: float = 0.0
    """Share of its speed that a core loses when all of them work: threads of one core, caches."""
    _left: dict[asyncio.Event, float] = field(default_factory=dict)
    """Core-seconds that each piece of work under way still needs."""
    _looked: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    async def work(self, seconds: float) -> None:
        """Take ``seconds`` of one core: longer, where the cores are short."""
        if seconds <= 0:
            return
        if math.isinf(self.count):
            await asyncio.sleep(seconds)  # nobody shares: nothing to book
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
        busy = len(self._left)
        if not busy:
            return 0.0
        crowd = (min(busy, self.count) - 1) / (self.count - 1) if self.count > 1 else 0.0
        return min(1.0, self.count / busy) * (1 - self.crowding * crowd)

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
        # Late in a long run the clock cannot show a nanosecond: what is less than it shows is done.
        least = max(1e-9, 4 * math.ulp(self._looked))
        for piece in [piece for piece, left in self._left.items() if left <= least]:
            del self._left[piece]
            piece.set()
        self._wake_when_next_is_done()


@dataclass
class Line:
    """Serves one after the other: a thread of the driver's, a queue's, a network card."""

    cores: Cores | None = None
    """Whose work the service is; None: a device's, which takes no core."""
    busy_seconds: float = 0.0
    served: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _free: float = 0.0
    """When a device has served all who came."""

    async def serve(self, seconds: float, calls: int = 1) -> None:
        """Wait for one's turn, and for one's own service, which counts as so many ``calls``."""
        if self.cores is None:
            await until(self.book(seconds, calls))
            return
        self.busy_seconds += seconds
        self.served += calls
        async with self._turn:
            await self.cores.work(seconds)

    def book(self, seconds: float, calls: int = 1) -> float:
        """Take the next turn of a device, which takes no core; returns when it will be over."""
        assert self.cores is None
        self.busy_seconds += seconds
        self.served += calls
        self._free = max(self._free, asyncio.get_running_loop().time()) + seconds
        return self._free


async def until(time: float) -> None:
    """Wait until then; not at all where that is past."""
    if (seconds := time - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(seconds)
