"""A whole job: makes the models that the recipe wants made, then distils, then says how it went."""

import asyncio
import sys
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from configs.errors import DpkdError
from configs.run import RunConfig
from orchestration.crew import Surroundings
from orchestration.exporter import MetricsHub
from orchestration.inputs import open_prompts, open_tokenizer, with_data
from orchestration.launcher import make_launcher
from orchestration.lifecycle import StopRequest
from orchestration.outline import describe
from orchestration.progress import Progress, make_progress
from orchestration.resume import Origin, find_origin
from orchestration.role_counts import initial_counts
from orchestration.run_folder import RunFolder, require_cache, run_path, with_places
from orchestration.run_lock import RunLock
from orchestration.run_state import read_status, write_down_a_crash
from orchestration.session import Session
from orchestration.stages import Stages
from orchestration.table import result_table
from orchestration.targets import TargetFile
from orchestration.trackers import open_trackers


def run_job(config: RunConfig) -> int:
    """Run ``config`` to its end; returns the process's exit code.

    Errors meant for the user are printed as one sentence and kept in ``status.json``; any
    other error is recorded there too, and raised.
    """
    disable_progress_bar()  # one display is enough
    config = with_places(config, Path.cwd())
    require_cache(config.cache)
    progress = make_progress(config.monitoring, sys.stdout)
    # A retry on another machine waits for its predecessor's lock to fall silent.
    waits = progress.announce if config.resume == "auto" else None
    with RunLock(run_path(config), waits):
        write_down_a_crash(run_path(config), progress.announce)
        origin = find_origin(config, run_path(config), progress.announce)
        if origin and _is_finished(origin, config):
            progress.announce(f"{run_path(config)} is finished; raise learner.steps to go on")
            return 0
        folder = RunFolder(config, continues=bool(origin and origin.same_run))
        try:
            return asyncio.run(_run(config, folder, progress, origin))
        except DpkdError as error:
            folder.status("failed", reason=str(error), exit_code=error.exit_code)
            raise
        except BaseException as error:
            folder.status("failed", reason=repr(error), exit_code=1)
            raise
        finally:
            progress.close()
            if config.monitoring.report:
                from orchestration.report import write_at_the_end  # brings matplotlib

                write_at_the_end(folder.path)


async def _run(
    config: RunConfig, folder: RunFolder, progress: Progress, origin: Origin | None
) -> int:
    progress.announce(describe(config))
    progress.announce(f"run folder: {folder.path}")
    trackers = open_trackers(config, folder.path, progress.announce)
    hub = MetricsHub(config.monitoring)
    folder.metrics_url = hub.url
    folder.status("running")
    watched = f"watch it: {hub.page_url}  metrics: {hub.url}"
    progress.announce(watched if hub.url else "metrics: not served, see metrics.jsonl")
    stop = StopRequest(progress.announce)
    try:
        with stop, TargetFile(config, hub.port) as targets:
            config = with_data(config)
            # In a thread, so that a signal is heard while a hub downloads or a file is read.
            tokenizer = await asyncio.to_thread(open_tokenizer, config, progress.announce)
            prompts = await asyncio.to_thread(open_prompts, config, tokenizer)
            namespace = f"dpkd-{config.name}"
            with make_launcher(config.cluster, namespace, config.monitoring) as launcher:
                stop.take()
                launcher.require(initial_counts(config))
                if launcher.metrics:
                    hub.show(launcher.metrics)
                targets.add("ray", launcher.ray_port)
                around = Surroundings(
                    launcher=launcher, hub=hub, progress=progress, stop=stop, targets=targets
                )
                inputs = await Stages(config, folder, around).inputs(tokenizer, prompts)
                hub.track(trackers)  # of the run itself, not of the stages that make its models
                summary = await Session(config, folder, inputs, around, origin).run()
    except asyncio.CancelledError:
        if not stop.signal:
            raise
        folder.status("stopped", reason=stop.signal.name, exit_code=stop.exit_code)
        return stop.exit_code
    finally:
        hub.close()
        trackers.close()
    _announce_end(folder, progress, stop, summary)
    return stop.exit_code


def _is_finished(origin: Origin, config: RunConfig) -> bool:
    """Whether this very run has nothing left to do."""
    if not origin.same_run or origin.checkpoint.step < config.learner.steps:
        return False
    status = read_status(run_path(config))
    return status is not None and status.get("state") == "succeeded"


def _announce_end(folder: RunFolder, progress: Progress, stop: StopRequest, summary: dict) -> None:
    progress.announce(result_table(summary))
    progress.announce(f"student: {folder.student}  summary: {folder.path / 'summary.json'}")
    if stop.signal:
        progress.announce("to go on from here: the same command with resume=auto")
