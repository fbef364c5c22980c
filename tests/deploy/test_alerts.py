"""The alerts: they fire and keep silent, read metrics that exist, and lead to the runbook."""

import re
from pathlib import Path
from typing import Any

import yaml

from configs.keys import known_keys
from configs.metrics import METRICS
from configs.run import RunConfig
from tests.deploy.promtool import promtool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yaml"
TESTS = ROOT / "deploy/prometheus/alerts_test.yaml"
FOREIGN = {"up"}
"""Series that Prometheus makes itself."""


def alerts() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def test_the_rules_are_valid():
    assert f"{len(alerts())} rules found" in promtool("check", "rules", str(RULES))


def test_every_alert_fires_where_it_should_and_is_silent_where_it_should():
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))
    cases = [case["name"] for case in yaml.safe_load(TESTS.read_text())["tests"]]
    for alert in alerts():
        assert {f"{alert['alert']} fires", f"{alert['alert']} is silent"} <= set(cases)


def test_alerts_read_only_metrics_of_the_catalogue():
    known = {metric.name for metric in METRICS}
    for alert in alerts():
        names = set(re.findall(r"\b(dpkd_\w+|up)\b", alert["expr"]))
        assert names and names <= known | FOREIGN, alert["alert"]


def test_every_alert_has_its_paragraph_in_the_runbook_and_the_reverse():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alert["alert"] for alert in alerts())
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_the_runbook_names_settings_and_metrics_that_exist():
    text = (ROOT / "docs/runbook.md").read_text()
    known = {metric.name for metric in METRICS}
    assert set(re.findall(r"`(dpkd_\w+)`", text)) <= known
    sections = "|".join(RunConfig.model_fields)
    settings = set(re.findall(rf"`((?:{sections})\.[a-z_.]+)[`:]", text))
    assert len(settings) > 15 and settings <= set(known_keys(RunConfig))
