"""Whether requests and limits of a container are quantities that Kubernetes takes together."""

from collections.abc import Iterator
from typing import Any

from tests.deploy.lenient import mapping
from tests.deploy.manifests import Manifest
from tests.deploy.quantities import quantity


def memory_of(given: Any) -> float:
    """A quantity of memory in bytes. Raises ValueError for what is no quantity."""
    if (amount := quantity(given)) is None:
        raise ValueError(f"{given} is no quantity")
    return amount


def resource_complaints(container: Manifest) -> Iterator[str]:
    """Yield what an API server would refuse of a container's resources, and what is not said."""
    resources = mapping(container, "resources")
    if not resources:
        yield "states no resources"
    requests, limits = mapping(resources, "requests"), mapping(resources, "limits")
    for kind, amounts in (("request", requests), ("limit", limits)):
        for name, given in amounts.items():
            if quantity(given) is None:
                yield f"its {kind} of {name} is no quantity: {given}"
    if resources and not limits.keys() | requests.keys() >= {"cpu", "memory"}:
        yield "states no cpu or no memory"
    for name in sorted(map(str, requests.keys() | limits.keys())):
        yield from _pair(name, requests.get(name), limits.get(name))


def _pair(name: str, request: Any, limit: Any) -> Iterator[str]:
    """A limit alone is the request, too."""
    asked, most = quantity(request), quantity(limit)
    if "/" in name:  # devices: they are not lent twice
        if request is not None and asked != most:
            yield f"requests {request} of {name} and is limited to {limit}: they must be equal"
        if most is not None and most % 1:
            yield f"{limit} of {name} is no whole number"
    elif asked is not None and most is not None and asked > most:
        yield f"requests {request} of {name}, more than its limit {limit}"
