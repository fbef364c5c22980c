"""Lays stories out as one HTML file that needs nothing else: no network, no script."""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from jinja2 import Environment, FileSystemLoader, Template
from matplotlib.figure import Figure

from orchestration.report_figures import (
    FLOW,
    LEARNING,
    SCORES,
    course,
    reward_and_divergence,
    timeline,
    where_time_went,
)
from orchestration.report_story import OCCASIONS, Sample, Story
from orchestration.table import COLUMNS, pushes_in_words

SHOWN_SAMPLES = 4
FIGURE_CAPTIONS = {
    "How good was it when?": "Means over the validation rows; the table has the last ones.",
    "Does it learn?": "Faint: every step; strong: the mean of the last ten. A red cross below is "
    "a step whose value was not a number. A rising margin is not better by itself: on fresh "
    "pairs drawn at temperature 1 its expectation is never positive.",
    "Reward against reverse KL": "The path of learning, coloured by step (DPKD, Figure 3).",
    "What does it wait for?": "Policy lag: learner steps between drawing y_s and learning from it.",
    "Where the time went": "Colours: at work. Grey: waiting, for what ended the wait.",
    "What befell it": "Starts, checkpoints, restarts, drops and roll-backs.",
}


class Pictures(NamedTuple):
    """Token-level advantages of a few pairs, as SVG texts, or why there are none."""

    svgs: Sequence[str] = ()
    note: str = ""


def page(stories: Sequence[Story], pictures: Mapping[str, Pictures]) -> str:
    """Return the HTML of a report on one run, or on several over each other."""
    alone = len(stories) == 1
    rows = [
        {"label": label if alone else f"{story.name}: {label}", "cells": cells}
        for story in stories
        for label, cells in _score_rows(story, between=alone)
    ]
    return _template().render(
        title=f"Run {stories[0].name}" if alone else f"{len(stories)} runs",
        headings=[heading.replace("\n", " ") for heading, _ in COLUMNS.values()],
        rows=rows,
        figures=_figures(stories),
        runs=[_told(story, pictures.get(story.name, Pictures()), alone=alone) for story in stories],
    )


def _score_rows(story: Story, *, between: bool) -> list[tuple[str, list[str]]]:
    rows = []
    inner = [when for when in story.scores if when not in OCCASIONS]
    order = ["before", *(inner if between else []), "after", "teacher"]
    for when in order:
        if scores := story.scores.get(when):
            cells = [
                form.format(scores[key]) if scores.get(key) is not None else "-"
                for key, (_, form) in COLUMNS.items()
            ]
            rows.append((OCCASIONS.get(when, when.replace("-", " ")), cells))
    return rows


def _figures(stories: Sequence[Story]) -> list[dict[str, str]]:
    runs = {story.name: story.curves for story in stories}
    scores = {story.name: story.score_curves for story in stories}
    drawn: dict[str, Figure | None] = {
        "How good was it when?": course(scores, SCORES, smooth=False),
        "Does it learn?": course(runs, LEARNING),
        "Reward against reverse KL": reward_and_divergence(runs),
        "What does it wait for?": course(runs, FLOW),
    }
    for story in stories:
        suffix = "" if len(stories) == 1 else f", {story.name}"
        drawn[f"Where the time went{suffix}"] = where_time_went(story.times)
        drawn[f"What befell it{suffix}"] = timeline(story.incidents)
    return [
        {
            "title": title,
            "source": svg_source(_svg(figure)),
            "caption": FIGURE_CAPTIONS[title.split(",")[0]],
        }
        for title, figure in drawn.items()
        if figure is not None
    ]


def _told(story: Story, pictures: Pictures, *, alone: bool) -> dict[str, Any]:
    return {
        "name": story.name,
        "suffix": "" if alone else f", {story.name}",
        "lead": _lead(story),
        "reason": story.reason if story.evidence.state != "succeeded" else "",
        "samples": [_shown(sample) for sample in story.samples[:SHOWN_SAMPLES]],
        "pictures": [svg_source(svg) for svg in pictures.svgs],
        "picture_note": pictures.note,
        "ledger": _ledger(story),
        "incidents": story.incidents,
        "facts": _facts(story),
        "config": story.config_text,
        "unreadable": story.evidence.unreadable,
    }


def _lead(story: Story) -> str:
    settings = story.evidence.settings
    objective = settings.objective.type if settings else "unknown objective"
    steps = f"{len(story.evidence.standing)} of {settings.learner.steps if settings else '?'} steps"
    seconds = story.summary.get("wall_seconds")
    took = f" in {seconds / 60:.1f} min" if seconds else ""
    return f"{story.evidence.state}, {objective}, {steps}{took}"


def _shown(sample: Sample) -> dict[str, Any]:
    said = sample.responses
    order = ["before", *(when for when in said if when not in OCCASIONS), "after", "teacher"]
    answers = [(OCCASIONS.get(when, when), said[when]) for when in order if when in said]
    return {
        "prompt": sample.prompt.strip(),
        "answers": [*answers, ("a reference", sample.references[0] if sample.references else "-")],
    }


def _ledger(story: Story) -> list[tuple[str, str]]:
    balance = story.evidence.account.balance()
    dropped = [(f"dropped: {reason}", str(count)) for reason, count in balance.dropped.items()]
    restarts = [one for one in story.incidents if one.kind == "restart"]
    pushes = story.summary.get("weight_sync", {})
    return [
        ("issued", str(balance.issued)),
        ("consumed by a step", str(balance.consumed)),
        *(dropped or [("dropped", "0")]),
        ("in flight", str(balance.in_flight)),
        ("unaccounted for", str(balance.unaccounted)),
        ("restarts", str(len(restarts))),
        ("weight pushes", pushes_in_words(pushes) if pushes else "-"),
    ]


def _facts(story: Story) -> list[tuple[str, str]]:
    summary = story.summary
    facts = {
        "recipe": summary.get("recipe"),
        "seed": summary.get("seed"),
        **{f"{role} model": where for role, where in summary.get("models", {}).items() if where},
        **{key.replace("_", " "): value for key, value in summary.get("throughput", {}).items()},
        "largest log-probability drift, nats": summary.get("logprob_drift", {}).get("max"),
        **story.versions,
        "folder": story.evidence.folder,
    }
    return [(label, str(value)) for label, value in facts.items() if value is not None]


def svg_source(svg: str) -> str:
    """Return an SVG as the source of an image: ids of several do not meet in one page."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


@cache
def _template() -> Template:
    folder = Path(__file__).parent / "templates"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html")
