"""Back-pressure of the pipeline in one number (docs/decisions/0002-slots.md)."""

import asyncio


class Slots:
    """How many prompts may be in flight: a window, closed once enough were learned from."""

    def __init__(self, *, window: int, total: int) -> None:
        self._window = window
        self._unlearned = total
        self._in_flight = 0
        self._changed = asyncio.Condition()

    async def take(self, at_most: int) -> int:
        """Wait for a free slot and take up to ``at_most``; returns how many.

        Waits for ever once ``total`` prompts are learned from or in flight: the learn loop
        ends the producers.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._free() > 0)
            taken = min(at_most, self._free())
            self._in_flight += taken
            return taken

    async def learned(self, count: int) -> None:
        """Free the slots of ``count`` prompts that a pushed step learned from."""
        async with self._changed:
            self._in_flight -= count
            self._unlearned -= count
            self._changed.notify_all()

    async def dropped(self, count: int) -> None:
        """Free the slots of ``count`` prompts that nobody will learn from."""
        async with self._changed:
            self._in_flight -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Give no slot any more."""
        self._window = 0

    def _free(self) -> int:
        return min(self._window, self._unlearned) - self._in_flight
