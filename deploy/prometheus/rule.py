"""The alerts as Prometheus's operator takes them, made from the file that a plain Prometheus reads.

make generated
"""

import sys
from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).with_name("alerts.yaml")


def build() -> dict[str, Any]:
    """Return the PrometheusRule."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "dpkd", "labels": {"app.kubernetes.io/name": "dpkd"}},
        "spec": yaml.safe_load(ALERTS.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    sys.stdout.write("# Written by `make generated` from alerts.yaml.\n")
    sys.stdout.write(yaml.safe_dump(build(), sort_keys=False, width=120))
