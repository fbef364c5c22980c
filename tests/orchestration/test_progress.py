import io

from rich.console import Console

from configs.monitoring import MonitoringConfig
from orchestration.progress import LiveProgress, PlainProgress, Progress, make_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


STEP = {
    "loss": 0.69314,
    "reverse_kl_per_token": 0.412,
    "reward_margin": -0.02,
    "tokens": 500.0,
    "depth": 32,
    "lag": 1,
}


def test_plain_lines_come_at_the_first_the_last_and_every_nth_step() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = PlainProgress(stream, every=4, clock=clock)
    progress.stage("distil", 10)
    for step in range(1, 11):
        clock.now += 2.0
        progress.update({**STEP, "step": step})
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "distil: 10 steps"
    assert lines[2] == (
        "distil  step 4/10  loss 0.693  reverse KL/token 0.412  reward margin -0.020  "
        "tok/s 250  queue 32  lag 1  ETA 0:12"
    )
    shown = [line.split("step ")[1].split("/")[0] for line in lines[1:-1]]
    assert shown == ["1", "4", "8", "10"]
    assert lines[-1] == "distil: 10/10 steps in 0:20"


def test_plain_lines_have_no_control_characters() -> None:
    stream = io.StringIO()
    progress = make_progress(MonitoringConfig.model_validate({"log_every": 1}), stream)
    progress.announce("compiling kernels for the first generation, 6 to 20 s")
    progress.stage("distil", 2)
    progress.update({**STEP, "step": 1})
    progress.close()
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().startswith("compiling kernels for the first generation, 6 to 20 s\n")


def test_statistics_that_a_step_lacks_are_left_out_and_nan_is_shown() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = PlainProgress(stream, every=1, clock=clock)
    progress.stage("warm start", 100)
    clock.now = 40.0
    progress.update({"step": 1, "loss": float("nan")})
    assert stream.getvalue().splitlines()[-1] == "warm start  step 1/100  loss nan  ETA 1:06:00"


def test_a_new_stage_forgets_the_rate_of_the_one_before() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = PlainProgress(stream, every=1, clock=clock)
    progress.stage("first", 1)
    clock.now = 1.0
    progress.update({"step": 1, "tokens": 1000})
    progress.stage("second", 2)
    clock.now = 3.0
    progress.update({"step": 1, "tokens": 100})
    progress.close()
    progress.close()
    assert stream.getvalue().splitlines() == [
        "first: 1 steps",
        "first  step 1/1  tok/s 1,000  ETA 0:00",
        "first: 1/1 steps in 0:01",
        "second: 2 steps",
        "second  step 1/2  tok/s 50  ETA 0:02",
        "second: 1/2 steps in 0:02",
    ]


def test_the_live_display_shows_the_newest_step_and_announcements_stay_above_it() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=110, color_system=None)
    progress = LiveProgress(stream, console=console, clock=Clock())
    progress.stage("distil", 150)
    progress.update({**STEP, "step": 7, "tokens_per_second": 1234.0})
    progress.announce("evaluation [before]: rouge_l 12.5")
    with console.capture() as capture:
        console.print(progress._render())
    rendered = capture.get()
    progress.close()
    for cell in ("distil", "7/150", "0.693", "0.412", "-0.020", "1,234", "32", "ETA"):
        assert cell in rendered, cell
    assert "evaluation [before]: rouge_l 12.5\n" in stream.getvalue()
    assert "distil: 7/150 steps in 0:00\n" in stream.getvalue()
    assert stream.getvalue().count("\x1b[?25h") == 1, "the cursor is shown again"


def test_the_display_fits_the_stream(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    config = MonitoringConfig.model_validate({})
    assert type(make_progress(config, Terminal())) is LiveProgress
    assert type(make_progress(config, io.StringIO())) is PlainProgress
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_progress(config, Terminal())) is PlainProgress


def test_without_progress_only_announcements_are_shown() -> None:
    stream = io.StringIO()
    progress = make_progress(MonitoringConfig.model_validate({"progress": False}), stream)
    assert type(progress) is Progress
    progress.update({**STEP, "step": 1})
    progress.announce("the result")
    assert stream.getvalue() == "the result\n"
