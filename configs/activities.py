"""What a part does while a method of it runs, and what it had been waiting for until then.

Every second of a part is booked under one of these names: metrics, timeline and report read them.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Activity(NamedTuple):
    """One way to spend time."""

    name: str
    """What is done."""
    awaits: str
    """What ends the wait before it."""


ORDERS = "orders"
"""Waiting for the driver, which is busy with something else, or has nothing to do."""
TURN = "turn"
"""Waiting for the one thread that all parts share where they live in one process."""
RESTART = "restart"
"""Dead: from the last sign of life until a new process is ready."""

ACTIVITIES: Mapping[str, Activity] = {
    "generate": Activity("generating", "prompts"),
    "respond": Activity("answering", "prompts"),
    "judge": Activity("scoring", "student_responses"),
    "annotate": Activity("scoring", "student_responses"),
    "score_responses": Activity("scoring", ORDERS),
    "load_weights": Activity("loading_weights", "weights"),
    "go_back": Activity("loading_weights", "weights"),
    "relay": Activity("relaying_weights", "weights"),
    "transfer": Activity("loading_weights", "weights"),
    "accept": Activity("loading_weights", "weights"),
    "prove": Activity("loading_weights", "weights"),
    "forward_backward": Activity("learning", "batch"),
    "optim_step": Activity("learning", ORDERS),
    "publish_weights": Activity("publishing_weights", ORDERS),
    "send_weights": Activity("publishing_weights", ORDERS),
    "probe": Activity("publishing_weights", ORDERS),
    "nll": Activity("evaluating", ORDERS),
    "save": Activity("saving", ORDERS),
    "save_model": Activity("saving", ORDERS),
    "build": Activity("loading", ORDERS),
    "load": Activity("loading", ORDERS),
}
"""By method of a part."""
_OTHER = Activity("other", ORDERS)

BUSY_WITH = tuple(dict.fromkeys(one.name for one in (*ACTIVITIES.values(), _OTHER)))
"""Every name of something done."""
IDLE_FOR = tuple(
    dict.fromkeys([*(one.awaits for one in ACTIVITIES.values()), ORDERS, TURN, RESTART])
)
"""Every name of something waited for."""


def activity_of(method: str) -> Activity:
    """Return what a part does in ``method``."""
    return ACTIVITIES.get(method, _OTHER)
