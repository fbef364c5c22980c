"""Uses of prompts that a run gives up: booked with a reason, and bounded in number."""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import DependencyError, DpkdError, NonFiniteError
from configs.replay import DropReason
from configs.wire import Uid
from orchestration.ledger import Ledger
from orchestration.payloads import Payloads
from orchestration.roles import Role
from orchestration.slots import Slots

_ADVICE: dict[str, tuple[type[DpkdError], str]] = {
    "teacher_failed": (DependencyError, "read the log of the teacher's server"),
    "poison": (DependencyError, "read the logs of the parts that died over them"),
}
_OTHERWISE = (NonFiniteError, "look at the teacher's log-probabilities")


@dataclass(frozen=True, kw_only=True)
class Drops:
    """Gives up, and lets other prompts be issued in the place of those."""

    queue: Role
    ledger: Ledger
    slots: Slots
    payloads: Payloads
    most: int
    """``replay.max_dropped``."""

    async def add(self, uids: Sequence[Uid], reason: DropReason) -> None:
        """Count ``uids`` as dropped.

        Raises NonFiniteError, or DependencyError where a part is to blame, once there are more
        than ``most``.
        """
        if not uids:
            return
        await self.queue.call("drop", list(uids), reason)
        self.payloads.forget(uids)
        self.ledger.dropped(reason, uids)
        await self.slots.dropped(len(uids))
        dropped = sum(self.ledger.balance().dropped.values())
        if dropped > self.most:
            error, advice = _ADVICE.get(reason, _OTHERWISE)
            raise error(
                f"{dropped} uses of prompts were dropped, the last of them {uids[-1]} as {reason}: "
                f"more than replay.max_dropped ({self.most}); {advice}, or raise the bound"
            )
