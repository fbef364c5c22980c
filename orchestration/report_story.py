"""What a run folder has to tell: everything that its report shows, read and put in order.

Works on whatever there is: a run that failed before its first step has a story too.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orchestration.evidence import Evidence
from orchestration.gathering import gather, read_lines
from orchestration.prompt_scores import SCORES_NAME, by_occasion, mean_of
from orchestration.run_folder import TIMES_NAME
from orchestration.training_curves import Curves, curves_of

SCORES = ("rouge_l", "greedy_rouge_l", "exact_match", "greedy_exact_match", "reverse_kl_nats")
"""Those that every prompt has of its own: known even where a run has left no summary."""
OCCASIONS = {"before": "student before", "after": "student after", "teacher": "teacher"}


class Incident(NamedTuple):
    """Something that befell the run."""

    seconds: float
    """Since the run's first event."""
    kind: str
    """``start``, ``checkpoint``, ``restart``, ``drop``, ``roll-back`` or ``end``."""
    what: str


class Sample(NamedTuple):
    """One prompt of the validation rows, and who answered what."""

    prompt: str
    references: Sequence[str]
    responses: Mapping[str, str]
    """By occasion: ``before``, ``step-100``, ``after``, ``teacher``."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """One run, as its report tells it."""

    evidence: Evidence
    reason: str
    """Why it ended; empty: it came to its end, or goes on."""
    scores: Mapping[str, Mapping[str, float]]
    """Occasion → score → mean over the validation prompts."""
    curves: Curves
    times: Mapping[str, Mapping[str, Any]]
    """Where each role's seconds went, as far as is known."""
    incidents: Sequence[Incident]
    samples: Sequence[Sample]

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.evidence.folder.name

    @property
    def summary(self) -> Mapping[str, Any]:
        """summary.json; empty: the run did not come to write one."""
        return self.evidence.summary or {}

    @property
    def score_curves(self) -> Curves:
        """The student's scores by step; empty unless it was looked at between start and end."""
        last = int(self.curves["step"].max()) if "step" in self.curves else 0
        steps = {"before": 0, "after": last}
        looks = [
            {
                "step": steps.get(when) if when in steps else int(when.removeprefix("step-")),
                **scores,
            }
            for when, scores in self.scores.items()
            if when != "teacher"
        ]
        inner = [look for look in looks if look["step"] not in steps.values()]
        return curves_of(sorted(looks, key=lambda look: look["step"])) if inner else {}

    @property
    def versions(self) -> Mapping[str, str]:
        """Software that the newest life of the run was made with, by package."""
        starts = [event for event in self.evidence.events if event["event"] == "run_started"]
        return starts[-1].get("versions", {}) if starts else {}

    @property
    def config_text(self) -> str:
        """The resolved configuration, as YAML."""
        return (self.evidence.folder / "config.yaml").read_text(encoding="utf-8")


def read_story(folder: Path) -> Story:
    """Read the run in ``folder``. Raises ConfigError where there is none."""
    evidence = gather(folder)
    return Story(
        evidence=evidence,
        reason=_reason(folder),
        scores=_scores(folder, evidence.summary or {}),
        curves=curves_of(evidence.metrics),
        times=(evidence.summary or {}).get("time") or _times(folder),
        incidents=_incidents(evidence.events),
        samples=_samples(folder),
    )


def _reason(folder: Path) -> str:
    try:
        return json.loads((folder / "status.json").read_text(encoding="utf-8"))["reason"]
    except (OSError, ValueError, KeyError):
        return "status.json is missing or cannot be read"


def _times(folder: Path) -> Mapping[str, Any]:
    """Return what a run that left no summary had written of its time; empty: nothing."""
    try:
        return json.loads((folder / TIMES_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _scores(folder: Path, summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the summary's scores where there is one, else those that can be had without."""
    if known := summary.get("eval"):
        return {when: dict(scores) for when, scores in known.items()}
    found: dict[str, dict[str, float]] = {}
    lines = read_lines(folder / SCORES_NAME, [], may_lack=True)
    for when, rows in by_occasion(lines).items():
        means = {score: mean_of(rows, score) for score in SCORES}
        found[when] = {score: mean for score, mean in means.items() if mean is not None}
    return found


def _incidents(events: Sequence[Mapping[str, Any]]) -> list[Incident]:
    first = events[0]["time"] if events else 0.0
    return [
        Incident(event["time"] - first, kind, what)
        for event in events
        for kind, what in _incident(event)
    ]


def _incident(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return kind and sentence of an event that a reader wants to see; most are not such."""
    found: list[tuple[str, str]] = []
    match event:
        case {"event": "run_started", "step": step}:
            found = [("start", f"started at step {step}")]
        case {"event": "run_finished", "state": state, "step": step}:
            found = [("end", f"{state} at step {step}")]
        case {"event": "checkpointed", "step": step}:
            found = [("checkpoint", f"checkpoint of step {step}")]
        case {"event": "restarted", "role": role, "seconds": seconds, "reason": reason}:
            found = [("restart", f"{role} restarted within {seconds:.1f} s: {reason}")]
        case {"event": "joined" | "left" as which, "role": role, "step": step}:
            found = [(which, f"{role} {which} behind step {step}")]
        case {"event": "dropped", "reason": reason, "uids": uids}:
            found = [("drop", f"{len(uids)} dropped as {reason}: {', '.join(uids[:4])}")]
        case {"event": "rolled_back", "step": step, "uids": uids}:
            found = [("roll-back", f"back to step {step}, {len(uids)} uses to be learned again")]
    return found


def _samples(folder: Path) -> list[Sample]:
    """Return what each logged prompt was answered, in the order of the file."""
    references: dict[str, Sequence[str]] = {}
    responses: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in read_lines(folder / "samples.jsonl", [], may_lack=True):
        references[row["prompt"]] = row["references"]
        responses[row["prompt"]][row["when"]] = row["response"]
    return [Sample(prompt, references[prompt], said) for prompt, said in responses.items()]
