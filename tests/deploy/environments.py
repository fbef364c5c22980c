"""What containers are told by their environment, and what they must not be.

Each function returns what is wrong, a sentence each.
"""

import re
from collections import Counter
from collections.abc import Iterator

from tests.deploy.lenient import mappings, text
from tests.deploy.manifests import Manifest
from tests.deploy.mounts import writable
from tests.deploy.pods import Pod, environment_of, head_of, pods_of

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
_SECRET = re.compile(
    r"(^|_)(API)?(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)($|_(?!PATH$|FILE$))",
    re.IGNORECASE,
)
"""In a variable's name; of a path or a file it says where the secret is."""


def environment_complaints(job: Manifest) -> list[str]:
    """Return them."""
    found = [
        f"{pod.where}: {complaint}"
        for pod in pods_of(job)
        for container in pod.containers
        for complaint in (*_container(pod, container), *told(environment_of(container)))
    ]
    return [*found, *_stop_wait(job)]


def told(environment: dict[str, str]) -> Iterator[str]:
    """Say what no environment may hold."""
    if environment.get("RAY_AUTH_MODE") not in (None, "token"):
        yield "RAY_AUTH_MODE turns Ray's token authentication off"
    for name, value in environment.items():
        if value and _SECRET.search(name):
            yield f"{name} looks like a secret in plain text"


def seconds(text: str) -> float | None:
    """A time to wait; None: that is none."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _container(pod: Pod, container: Manifest) -> Iterator[str]:
    environment = environment_of(container)
    if not (home := environment.get("HOME")):
        yield "HOME is not set: the image's own cannot be written to"
    elif not writable(pod, container, home):
        yield f"HOME={home} is below no mount that may be written to"
    if environment.get("RAY_USAGE_STATS_ENABLED") != "0":
        yield "RAY_USAGE_STATS_ENABLED is not 0: Ray would report its use"
    names = Counter(text(each, "name") for each in mappings(container, "env"))
    yield from (f"{name} is set {count} times" for name, count in names.items() if count > 1)


def _stop_wait(job: Manifest) -> Iterator[str]:
    asked = head_of(job).environment.get(STOP_WAIT, "")
    if seconds(asked) is None:
        yield f"head: {STOP_WAIT} is no number of seconds: {asked!r}"
    for pod in pods_of(job):
        if pod.environment.get(STOP_WAIT, asked) != asked:
            yield f"{pod.where}: {STOP_WAIT} is not {asked}, as the head has it"
