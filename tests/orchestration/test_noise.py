"""Noisy copies of a model, and when a comparison measures them again."""

import asyncio
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.errors import DependencyError
from configs.plan import NoiseConfig
from orchestration.comparison_runs import planned_runs
from orchestration.evaluate import _parse
from orchestration.noise_study import run_noise_study
from orchestration.noisy_copy import write_noisy_copy
from tests.orchestration.comparison_builders import finish, plan


def _model(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    wide = 5 + 3 * torch.randn(200, 100, generator=torch.Generator().manual_seed(1))
    tensors = {"wide": wide, "constant": torch.ones(50), "ids": torch.arange(4)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _copy(model, folder, *, sigma: float, seed: int = 0) -> dict[str, torch.Tensor]:
    folder.mkdir()
    write_noisy_copy(str(model), folder, sigma=sigma, seed=seed)
    return load_file(folder / "model.safetensors")


def test_noise_is_in_standard_deviations_of_each_tensor(tmp_path):
    model = _model(tmp_path / "model")
    clean = load_file(model / "model.safetensors")
    noisy = _copy(model, tmp_path / "noisy", sigma=0.1)
    gap = noisy["wide"] - clean["wide"]
    # Over 20 000 draws of 0.1 · 3: the standard deviation is known to 1 %.
    assert gap.std().item() == pytest.approx(0.3, rel=0.02)
    assert gap.mean().item() == pytest.approx(0.0, abs=0.01)
    assert torch.equal(noisy["constant"], clean["constant"])
    assert torch.equal(noisy["ids"], clean["ids"])
    assert (tmp_path / "noisy" / "config.json").read_text() == "{}"


def test_sigma_0_is_the_model_itself_and_two_sigmas_share_a_direction(tmp_path):
    model = _model(tmp_path / "model")
    clean = _copy(model, tmp_path / "zero", sigma=0.0)["wide"]
    assert torch.equal(clean, load_file(model / "model.safetensors")["wide"])
    one, two = (_copy(model, tmp_path / f"s{s}", sigma=s)["wide"] - clean for s in (0.1, 0.2))
    assert torch.allclose(2 * one, two, atol=1e-4)


def test_another_seed_is_another_noise(tmp_path):
    model = _model(tmp_path / "model")
    copies = [_copy(model, tmp_path / f"n{seed}", sigma=0.1, seed=seed) for seed in (0, 1)]
    assert not torch.equal(copies[0]["wide"], copies[1]["wide"])


def test_a_model_that_is_not_in_safetensors_is_refused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "old" / "pytorch_model.bin").touch()
    with pytest.raises(DependencyError, match="convert it first"):
        write_noisy_copy(str(tmp_path / "old"), tmp_path, sigma=0.1, seed=0)


def test_the_command_takes_a_list_of_sigmas(capsys):
    assert _parse(["m", "d", "--noise", "0,0.01"]).noise == [0.0, 0.01]
    with pytest.raises(SystemExit):
        _parse(["m", "d", "--noise", "0,-1"])
    assert "standard deviations of 0 or more" in capsys.readouterr().err


class Answers:
    """Processes that answer at once, with the sigmas that they are asked for."""

    signal = None

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def start(self, name, command, log, *, answer) -> None:
        self.commands.append(command)
        sigmas = command[command.index("--noise") + 1].split(",")
        points = [{"sigma": float(sigma), "rouge_l": 1.0} for sigma in sigmas]
        answer.write_text(json.dumps({"noise": points}))

    async def next(self):
        return "child", 0


def _study(runs, sigmas: tuple[float, ...]) -> list[list[str]]:
    answers = Answers()
    noise = NoiseConfig(sigmas=sigmas, method="sft")
    assert asyncio.run(run_noise_study(noise, runs, answers, lambda _: None))  # type: ignore[arg-type]
    return answers.commands


def test_students_are_measured_once_until_they_or_the_sigmas_change(tmp_path):
    data = tmp_path / "rows.jsonl"
    runs = planned_runs(plan(tmp_path, overrides=[f"data.train={data}", "data.validation_rows=8"]))
    for run in runs:
        finish(run, 50.0, 60.0)
    commands = _study(runs, (0.0, 0.1))
    assert [command[3] for command in commands] == [
        str(run.folder / "student") for run in runs if run.method == "sft"
    ]
    assert commands[0][4:7] == [str(data), "--rows", "8"]
    assert "data.validation=null" in commands[0]
    assert _study(runs, (0.0, 0.1)) == []
    assert len(_study(runs, (0.0, 0.2))) == 2
    younger = runs[1].folder / "summary.json"
    later = younger.stat().st_mtime + 100
    os.utime(younger, (later, later))
    assert len(_study(runs, (0.0, 0.2))) == 1
