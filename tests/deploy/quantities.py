"""Amounts as Kubernetes writes them."""

import re
from typing import Any

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)([num]|[kMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_FACTORS = {
    **{"n": 1e-9, "u": 1e-6, "m": 1e-3},
    **{unit: 10.0 ** (3 * power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 2.0 ** (10 * power) for power, unit in enumerate("KMGTPE", 1)},
}


def quantity(given: Any) -> float | None:
    """The amount; None: that is none."""
    found = _QUANTITY.fullmatch(str(given)) if isinstance(given, str | int | float) else None
    if found is None:
        return None
    amount, unit = found.groups()
    factor = _FACTORS[unit] if unit in _FACTORS else float(f"1{unit or ''}")
    return float(amount) * factor
