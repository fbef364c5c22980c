"""Token-level advantages of a few pairs of a run: y_t by its teacher, y_s by its student."""

from pathlib import Path
from typing import Any

from configs.errors import DpkdError
from orchestration.advantage_picture import Answers, draw_answers, open_models
from orchestration.report_page import Pictures
from orchestration.report_story import Sample, Story

MOST_BYTES = 2 << 30
"""Weights larger than this, both models together, are not loaded for a picture's sake."""


def pictures_of(story: Story, count: int) -> Pictures:
    """Return pictures of the first ``count`` prompts that student and teacher both answered."""
    student, teacher = (
        story.evidence.folder / "student",
        story.summary.get("models", {}).get("teacher"),
    )
    pairs = [sample for sample in story.samples if {"after", "teacher"} <= set(sample.responses)]
    if why := _hindrance(student, teacher, pairs):
        return Pictures(note=f"No picture of single tokens: {why}.")
    beta = getattr(story.evidence.config.objective, "beta", 1.0)
    try:
        models = open_models(str(student), str(teacher))
        return Pictures([draw_answers(models, _answers(sample), beta) for sample in pairs[:count]])
    except (DpkdError, OSError, ValueError) as error:
        return Pictures(note=f"No picture of single tokens: {error}.")


def _answers(sample: Sample) -> Answers:
    said = sample.responses
    return Answers(prompt=sample.prompt, teacher=said["teacher"], student=said["after"])


def _hindrance(student: Path, teacher: Any, pairs: list[Sample]) -> str:
    """Return why there can be no picture; empty: there can."""
    if not (student / "config.json").is_file():
        return "the run has left no student"
    if not teacher or not Path(teacher).is_dir():
        return "the teacher is not a folder on this machine"
    if not pairs:
        return "no prompt was answered by both student and teacher"
    weights = sum(
        file.stat().st_size
        for folder in (student, Path(teacher))
        for file in folder.glob("*.safetensors")
    )
    if weights > MOST_BYTES:
        return (
            f"the models' weights are {weights / 2**30:.0f} GiB; "
            "`python -m orchestration.advantage_picture` draws them"
        )
    return ""
