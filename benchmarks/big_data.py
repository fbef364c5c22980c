"""How long a data file of a million rows takes to its first prompt, and how much memory.

    python -m benchmarks.big_data [--runs 3] [--format jsonl]

Each time a process of its own imports what a run imports, and then opens the file as a run does:
every row is parsed and checked, the file hashed, the longest rows tokenised, the order drawn. The
clock runs from there to the first batch of prompts, and memory is the growth of the process's peak.
The file is generated once, some 350 MB; its bytes are read before each run, since what disks do is
not ours.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import report
from benchmarks.made_rows import write_rows
from benchmarks.processes import kilobytes

ROWS = 1_000_000
PROMPTS = 32
"""Taken first."""


def main() -> int:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.big_data", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=3, help="default: 3")
    parser.add_argument("--format", choices=("jsonl", "csv", "parquet"), default="jsonl")
    parser.add_argument("--open", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(_open(*options.open)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        seen = _runs(Path(folder), options.format, options.runs)
    if options.format != "jsonl":
        return 0  # the figures are JSONL's
    missed = report("big_data_seconds", [each["seconds"] for each in seen])
    return missed | report("big_data_memory", [each["megabytes"] for each in seen])


def _runs(folder: Path, suffix: str, runs: int) -> list[dict[str, float]]:
    data, tokenizer = folder / f"rows.{suffix}", folder / "tokenizer"
    write_rows(data, ROWS)
    _train_tokenizer(folder, tokenizer)
    command = [sys.executable, "-m", "benchmarks.big_data", "--open", str(data), str(tokenizer)]
    seen = []
    for _ in range(runs):
        _read(data)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seen.append(json.loads(done.stdout))
        print(f"{suffix}, {data.stat().st_size / 1e6:.0f} MB: {seen[-1]}", flush=True)
    return seen


def _read(data: Path) -> None:
    with data.open("rb") as file:
        while file.read(1 << 24):
            pass


def _train_tokenizer(folder: Path, tokenizer: Path) -> None:
    from actors.tokenizer import train_tokenizer

    sample = folder / "sample.jsonl"
    write_rows(sample, 1000)
    train_tokenizer(sample.read_text().splitlines(), 2000, tokenizer)


def _open(data: Path, tokenizer: Path) -> dict[str, float]:
    from transformers import AutoTokenizer

    from actors.prompts import PromptSource
    from configs.data import DataConfig

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    before, began, busy = kilobytes(os.getpid(), "VmRSS"), time.perf_counter(), time.process_time()
    source = PromptSource(DataConfig(train=data), loaded, train=data, seed=0, context=1024)
    prompts = source.take(PROMPTS)
    seconds, grown = time.perf_counter() - began, kilobytes(os.getpid(), "VmHWM") - before
    assert len(prompts) == PROMPTS and len(source) == ROWS - len(source.validation())
    processor = round(time.process_time() - busy, 3)
    return {
        "seconds": round(seconds, 3),
        "processor": processor,
        "megabytes": round(grown / 1000, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
