"""Run folders as runs of every kind leave them, without a run."""

import json
from pathlib import Path
from typing import Any

from configs.load import dump
from tests.builders import run_config

STEP = {"reward_teacher": -0.5, "reward_student": 0.5, "reverse_kl_first_token": 0.2, "loss": 1.5}
EVENTS = (
    {"event": "run_started", "step": 0, "versions": {"ray": "2.60.0"}},
    {"event": "issued", "uids": ["0/0/0", "0/1/0"]},
    {"event": "restarted", "role": "sampler-0", "reason": "it <died>", "seconds": 2.5},
    {"event": "consumed", "step": 1, "uids": ["0/0/0"]},
    {"event": "dropped", "reason": "poison", "uids": ["0/1/0"]},
    {"event": "checkpointed", "step": 1},
)


def told(folder: Path, *, steps: int = 30, state: str = "succeeded", **files: Any) -> Path:
    """A run folder with ``steps`` lines of metrics; ``files`` by stem replace its others."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(run_config(name=folder.name)))
    status = {"state": state, "reason": files.pop("reason", ""), "host": "elsewhere", "pid": 1}
    (folder / "status.json").write_text(json.dumps(status))
    metrics = [{"step": step + 1, **STEP} for step in range(steps)]
    events = [{"time": 10.0 + i, **event} for i, event in enumerate(EVENTS)]
    for name, lines in {"metrics": metrics, "events": events, **files}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder
