"""The dashboard is what the catalogue makes of it, and nothing of the catalogue is missing."""

import json
import re
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from configs.metrics import CATALOGUE, METRICS
from deploy.grafana.dashboard import build, rows

FILE = Path(__file__).parents[2] / "deploy/grafana/dpkd.json"


def test_the_file_is_the_one_that_the_catalogue_gives():
    assert json.loads(FILE.read_text()) == json.loads(JSONEncoder().encode(build())), (
        "make generated"
    )


def test_one_screen_answers_five_questions_from_top_to_bottom():
    titles = [panel["title"] for panel in json.loads(FILE.read_text())["panels"]]
    questions = [title for title in titles if title.endswith("?")]
    assert questions == [
        "Does it learn?",
        "What is it waiting for?",
        "Is it right?",
        "Is it healthy?",
        "What does it cost?",
    ]


def test_every_metric_is_on_a_panel():
    pictures = [picture for answers in rows().values() for picture in answers]
    shown = {key for picture in pictures for line in picture.lines for key in line.keys}
    assert shown == set(CATALOGUE)


def test_panels_read_only_metrics_of_the_catalogue():
    known = {metric.name for metric in METRICS}
    known |= {f"{metric.name}_bucket" for metric in METRICS if metric.kind == "histogram"}
    for panel in json.loads(FILE.read_text())["panels"]:
        for target in panel.get("targets", []):
            assert set(re.findall(r"\bdpkd_\w+", target["expr"])) <= known, panel["title"]


def test_the_margin_s_panel_warns_of_itself():
    panels = {panel["title"]: panel for panel in json.loads(FILE.read_text())["panels"]}
    assert "not 'better' by itself" in panels["Reward margin"]["description"]
