"""`metrics.jsonl`: one strict JSON object a step."""

import json
import math
from pathlib import Path


class MetricsLog:
    """Appends lines; every line is flushed, so a dying process loses at most the newest."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, **values: float | str | None) -> None:
        """Write one line. NaN and infinity, which JSON lacks, become null.

        Their keys are listed under ``nonfinite_keys``.
        """
        line = {key: _json_value(value) for key, value in values.items()}
        lost = sorted(key for key in values if line[key] is None and values[key] is not None)
        if lost:
            line["nonfinite_keys"] = lost
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()


def _json_value(value: float | str | None) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
