"""Whether requests and limits of a container are quantities that Kubernetes takes together."""

import re
from collections.abc import Iterator
from typing import Any

from tests.deploy.lenient import mapping
from tests.deploy.manifests import Manifest

_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)([A-Za-z]{0,2}|[eE][+-]?\d+)")
_UNITS = {
    **{"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3},
    **{unit: 10.0 ** (3 * power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 2.0 ** (10 * power) for power, unit in enumerate("KMGTPE", 1)},
}


def memory_of(quantity: Any) -> float:
    """A quantity of memory in bytes. Raises ValueError for what is no quantity."""
    if (amount := amount_of(quantity)) is None:
        raise ValueError(f"{quantity} is no quantity")
    return amount


def amount_of(quantity: Any) -> float | None:
    """A quantity in its unit: bytes, cores, devices; None for what is no quantity."""
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        return None
    number, unit = found.groups()
    if unit in _UNITS:
        return float(number) * _UNITS[unit]
    return float(number + unit) if unit[:1] in ("e", "E") and unit[1:] else None


def resource_complaints(container: Manifest) -> Iterator[str]:
    """Yield what an API server would refuse of a container's resources, and what is not said."""
    resources = mapping(container, "resources")
    if not resources:
        yield "states no resources"
    requests, limits = mapping(resources, "requests"), mapping(resources, "limits")
    for kind, amounts in (("request", requests), ("limit", limits)):
        for name, quantity in amounts.items():
            if amount_of(quantity) is None:
                yield f"its {kind} of {name} is no quantity: {quantity}"
    if resources and not limits.keys() | requests.keys() >= {"cpu", "memory"}:
        yield "states no cpu or no memory"
    for name in sorted(map(str, requests.keys() | limits.keys())):
        yield from _pair(name, requests.get(name), limits.get(name))


def _pair(name: str, request: Any, limit: Any) -> Iterator[str]:
    """A limit alone is the request, too."""
    asked, most = amount_of(request), amount_of(limit)
    if "/" in name:  # devices: they are not lent twice
        if request is not None and asked != most:
            yield f"requests {request} of {name} and is limited to {limit}: they must be equal"
        if most is not None and most % 1:
            yield f"{limit} of {name} is no whole number"
    elif asked is not None and most is not None and asked > most:
        yield f"requests {request} of {name}, more than its limit {limit}"
