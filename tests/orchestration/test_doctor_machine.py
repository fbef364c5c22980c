"""The doctor's look at the machine: what a recipe needs against what there is."""

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from configs.load import load
from orchestration.checkups import GIB
from orchestration.checkups_machine import (
    Machine,
    check_cores,
    check_gpus,
    check_memory,
    check_shared_memory,
    free_shared_memory,
    this_machine,
)
from orchestration.checkups_needs import (
    MemoryNeed,
    disk_needs,
    memory_by_role,
    memory_need,
    parameters_in,
    parameters_of,
)
from orchestration.role_counts import reserved, role_counts

TEACHER, STUDENT = 1_007_616, 90_112
"""Parameters of the quickstart's models: 12 h² a layer, and 640 h."""


def machine(*, cores: int = 4, usable: float = 4, gib: float = 16, free_gib: float = 12) -> Machine:
    return Machine(
        cores=cores, usable_cores=usable, memory=int(gib * GIB), available=int(free_gib * GIB)
    )


def need(least: float, most: float, *unknown: str) -> MemoryNeed:
    return MemoryNeed(least=least * GIB, most=most * GIB, unknown=unknown)


def container(folder: Path, *, cpu: str, limit: str, used: int, inactive: int) -> Path:
    (folder / "cpu.max").write_text(f"{cpu}\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nslab 7\n")
    return folder


def test_a_container_s_limits_count(tmp_path):
    files = container(
        tmp_path, cpu="50000 100000", limit=str(10**8), used=6 * 10**7, inactive=10**7
    )
    found = this_machine(files)
    assert (found.usable_cores, found.memory, found.available) == (0.5, 10**8, 5 * 10**7)
    assert found.cores == os.cpu_count()


def test_without_limits_the_whole_machine_counts(tmp_path):
    files = container(tmp_path, cpu="max 100000", limit="max", used=10**9, inactive=0)
    for folder in (files, tmp_path / "none"):
        found = this_machine(folder)
        assert found.usable_cores == len(os.sched_getaffinity(0))
        assert found.memory == psutil.virtual_memory().total


def test_cores_that_suffice_are_ok():
    assert check_cores(1.5, None, machine()).verdict == "ok"


def test_more_cpus_reserved_than_ray_has_is_a_problem():
    finding = check_cores(4.5, None, machine())
    assert finding.verdict == "problem"
    assert "set cluster.local_cpus=5" in finding.fix
    assert check_cores(4.5, 5, machine(cores=8, usable=8)).verdict == "ok"


def test_fewer_usable_cores_than_ray_counts_is_a_warning():
    finding = check_cores(1.5, None, machine(cores=64, usable=4))
    assert finding.verdict == "warning"
    assert "cluster.local_cpus=4" in finding.fix
    assert check_cores(0, None, machine(cores=1, usable=1)).verdict == "warning"


def test_memory_is_held_against_processes_weights_and_caches():
    assert check_memory(need(5, 7), machine(free_gib=7.1)).verdict == "ok"
    tight = check_memory(need(5, 7), machine(free_gib=6))
    assert (tight.verdict, "kv_cache_gib" in tight.fix) == ("warning", True)
    busy = check_memory(need(5, 7), machine(free_gib=4))
    assert (busy.verdict, busy.fix.startswith("end other programs")) == ("problem", True)
    small = check_memory(need(5, 7), machine(gib=4, free_gib=3))
    assert (small.verdict, small.fix.startswith("take a larger machine")) == ("problem", True)


def test_models_of_unknown_size_are_named():
    finding = check_memory(need(5, 5, "the student gpt2"), machine())
    assert "not counting the student gpt2" in finding.detail


def test_gpus_are_counted_only_where_some_are_asked():
    def never() -> int:
        raise AssertionError

    assert check_gpus({"learner": 0.0}, never, cpu_engine=True).verdict == "ok"


@pytest.mark.parametrize(
    ("there", "cpu_engine", "verdict", "words"),
    [
        (2, False, "ok", "2 asked (sampler 0.5, learner 1.5), 2 there"),
        (1, False, "problem", "2 asked (sampler 0.5, learner 1.5), 1 there"),
        (2, True, "problem", "vLLM's build is the one for CPUs"),
    ],
)
def test_gpus_that_are_asked_must_be_there(there, cpu_engine, verdict, words):
    asked = {"sampler": 0.5, "teacher": 0.0, "learner": 1.5}
    finding = check_gpus(asked, lambda: there, cpu_engine=cpu_engine)
    assert finding.verdict == verdict
    assert words in finding.detail


def test_shared_memory_must_hold_ray_s_object_store():
    assert check_shared_memory(4 * GIB, 10 * GIB).verdict == "ok"
    docker = check_shared_memory(64 << 20, 10 * GIB)
    assert docker.verdict == "warning"
    assert "give it 3 GiB (Docker: --shm-size" in docker.fix
    # Ray puts at most 10 GB of objects on a disk, and takes what there is above that.
    assert check_shared_memory(10 * GIB, 1000 * GIB).verdict == "ok"
    assert check_shared_memory(None, 10 * GIB).verdict == "ok"


def test_shared_memory_is_measured_where_there_is_any(tmp_path):
    assert free_shared_memory(tmp_path / "none") is None
    assert free_shared_memory(tmp_path) == pytest.approx(
        psutil.disk_usage(str(tmp_path)).free, rel=0.01
    )


def test_a_recipe_reserves_for_every_actor_of_a_role():
    config = load("quickstart", ["student.replicas=3", "cluster.sampler.cpus=2"])
    asked = reserved(config.cluster, role_counts(config))
    assert {role: amounts["CPU"] for role, amounts in asked.items()} == {
        "sampler": 6.0,
        "teacher": 0.5,
        "learner": 0.5,
        "offline": 0.0,
        "reference": 0.0,
    }


def test_the_memory_of_the_quickstart_is_processes_weights_and_two_caches():
    found = memory_need(load("quickstart"))
    weights = 2 * 4 * TEACHER + 4 * STUDENT + 16 * STUDENT
    assert found.least == pytest.approx((0.8 + 1.8 + 1.8 + 0.5) * GIB + weights)
    assert found.most == pytest.approx(found.least + 2 * GIB)
    assert found.unknown == ()


def test_weights_and_caches_on_a_gpu_take_no_memory_of_the_machine():
    found = memory_need(load("quickstart", ["cluster.teacher.gpus=1", "cluster.sampler.gpus=1"]))
    assert found.least == pytest.approx((0.8 + 1.8 + 1.8 + 0.5) * GIB + 16 * STUDENT)
    assert found.most == found.least


@pytest.mark.parametrize(
    ("dtype", "stage", "each"),
    [
        ("float32", 0, 16),
        ("float32", 1, 8 + 8 / 4),
        ("float32", 2, 4 + 12 / 4),
        ("float32", 3, 16 / 4),
        ("bfloat16", 0, 4 + 12 / 4),
        ("bfloat16", 2, 2 + 14 / 4),
    ],
)
def test_ranks_share_what_their_zero_stage_shards(dtype, stage, each):
    config = load(
        "quickstart",
        ["learner.ranks=4", f"learner.zero_stage={stage}", f"learner.dtype={dtype}"],
    )
    learner = memory_by_role(config)["learner"]
    assert learner.host == pytest.approx(0.5 * GIB + each * STUDENT)
    assert (learner.gpu, learner.on_gpu, learner.unknown) == (0, False, False)


def test_what_is_on_a_gpu_is_counted_there():
    memory = memory_by_role(load("quickstart", ["cluster.learner.gpus=1"]))
    assert memory["learner"].host == 0.5 * GIB
    assert (memory["learner"].gpu, memory["learner"].on_gpu) == (16 * STUDENT, True)
    assert memory["sampler"].gpu == 0 and memory["sampler"].host > 1.8 * GIB


def test_a_model_that_is_trained_before_needs_a_learner_s_memory():
    large = "teacher.make={family: gpt2, hidden_size: 2048, layers: 24, heads: 16, context: 112}"
    found = memory_need(load("quickstart", [large]))
    parameters = 12 * 24 * 2048**2 + 640 * 2048
    assert found.least == pytest.approx((0.8 + 0.5) * GIB + 16 * parameters)


def test_a_hub_model_that_is_not_here_has_no_known_size(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = memory_need(load("gpt2_dolly"))
    assert found.unknown == ("the teacher gpt2-xl", "the student gpt2")


def test_a_run_writes_models_checkpoints_and_a_little_more():
    made = 4 * TEACHER + 4 * STUDENT
    assert disk_needs(load("quickstart", ["checkpoint.keep=3"])) == {
        "run folder": 4 * STUDENT + 2 * made + GIB,
        "cache": 2 * made + GIB,
        "checkpoints": 4 * 16 * STUDENT,
    }
    assert disk_needs(load("quickstart", ["checkpoint.every=0"]))["checkpoints"] == 0


def test_parameters_are_counted_from_the_weight_files(tmp_path):
    save_file({"a": np.zeros((3, 4), np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.zeros((2, 5), np.float16)}, tmp_path / "model-2.safetensors")
    assert parameters_in(tmp_path) == 22
    source = load("quickstart").student.model_copy(update={"model": str(tmp_path), "make": None})
    assert parameters_of(source, 640) == 22


def test_damaged_weights_and_what_is_not_there_have_no_known_size(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((3, 4), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    for model in (tmp_path, tmp_path / "none"):
        source = load("quickstart").student.model_copy(update={"model": str(model), "make": None})
        assert parameters_of(source, 640) is None
