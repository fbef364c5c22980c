"""Every malformed input is answered by its sentence: what is wrong, where, and what to do next.

The inputs and their sentences are tables, one a kind of input. What reads them is what a run
uses; no model starts, and no Ray. That the command prints the sentence and ends with the error's
exit code is tested here for recipes, and for the rest in ``test_bad_input.py``.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.prompts import PromptSource
from actors.scoring import TorchScorer
from configs.errors import ConfigError, DataError, DpkdError
from configs.load import load
from configs.run import RunConfig
from orchestration.inputs import open_prompts, open_tokenizer, with_data
from orchestration.resume import find_origin
from orchestration.run import main
from tests.actors.openai_stub import Answer, OpenAiStub, Request
from tests.orchestration import malformed_answers as answers
from tests.orchestration import malformed_checkpoints as checkpoints
from tests.orchestration import malformed_configs as configs
from tests.orchestration import malformed_data as data
from tests.orchestration import malformed_models as models


def assert_says(message: str, expected: str, **places: object) -> None:
    """Compare whole sentences; ``…`` is anything, and ``{name}`` one of the places."""
    for name, place in places.items():
        expected = expected.replace(f"{{{name}}}", str(place))
    pattern = ".+".join(re.escape(part) for part in expected.split("…"))
    assert re.fullmatch(pattern, message), f"{message!r} is not {expected!r}"


def each(cases: Sequence[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.what)


def config_of(folder: Path, train: Path, *overrides: str, student: Path | None = None) -> RunConfig:
    sound = models.sound_model()
    loaded = [
        *(f"student.model={student or sound}", "student.make=null", "student.warm_start=null"),
        *(f"teacher.model={sound}", "teacher.make=null", "teacher.warm_start=null"),
        *("student.sampling.max_new_tokens=8", "teacher.sampling.max_new_tokens=8"),
    ]
    files = [f"cache={folder / 'cache'}", f"data.train={train}", "data.validation_rows=0"]
    return load("quickstart", [*loaded, *files, *overrides])


def open_inputs(config: RunConfig) -> PromptSource:
    """Read what a run reads before it starts anything."""
    config = with_data(config)
    return open_prompts(config, open_tokenizer(config, print))


def refusal(kind: type[DpkdError], config: RunConfig) -> str:
    with pytest.raises(kind) as caught:
        open_inputs(config)
    assert caught.type is kind
    return str(caught.value)


# Configuration


@each(configs.CONFIGS)
def test_a_malformed_configuration(
    case: configs.Malformed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_bytes(case.recipe.replace(b"{folder}", bytes(tmp_path)))
    assert main([str(recipe), *case.overrides]) == ConfigError.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert_says(line, f"error: {case.said}", recipe=recipe, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{folder}/r.yaml", "recipe file {folder}/r.yaml is a folder (looked for …)"),
        ("{folder}/s.yaml", "recipe file {folder}/s.yaml does not exist (looked for …)"),
    ],
)
def test_a_recipe_that_is_no_file(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").mkdir()
    with pytest.raises(ConfigError) as caught:
        load(name.replace("{folder}", str(tmp_path)))
    assert_says(str(caught.value), said, folder=tmp_path)


# Data files


@each(data.ROWS)
def test_a_malformed_row_is_an_error_with_its_line_or_counted(
    case: data.Row, tmp_path: Path
) -> None:
    path, is_csv = tmp_path / case.name, case.name.endswith(".csv")
    good = data.GOOD_CSV if is_csv else data.GOOD
    more = good.removeprefix(data.HEADER) if case.row.endswith(b"\n") else b""
    path.write_bytes(good + case.row + more)
    message = refusal(DataError, config_of(tmp_path, path, *case.overrides))
    place = f"{path}, line {8 if is_csv else 7}"
    advice = "mend the row, or leave such rows out with data.on_bad_row=skip"
    assert_says(message, f"{place}: {case.said}; {advice}")
    source = open_inputs(config_of(tmp_path, path, *case.overrides, "data.on_bad_row=skip"))
    assert source.skipped == {case.reason: 1}
    assert len(source) == (12 if more else 6)


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@each(data.FILES)
def test_a_file_that_cannot_be_used(case: data.File, on_bad_row: str, tmp_path: Path) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content)
    config = config_of(tmp_path, path, f"data.on_bad_row={on_bad_row}")
    assert_says(refusal(DataError, config), case.said, path=path)


@pytest.mark.parametrize("key", ["data.train", "data.validation", "data.corpus"])
def test_a_data_file_that_is_no_file(key: str, tmp_path: Path) -> None:
    good = tmp_path / "d.jsonl"
    good.write_bytes(data.GOOD)
    for path, state in [(tmp_path / "none.jsonl", "does not exist"), (tmp_path, "is a folder")]:
        assert_says(
            refusal(DataError, config_of(tmp_path, good, f"{key}={path}")),
            f"data file {path} {state} (looked for {path}); see data.train, data.validation and "
            "data.corpus",
        )


def test_a_file_of_other_columns_says_which_it_has_and_which_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(data.GOOD_CSV.replace(b",", b";"))
    assert_says(
        refusal(DataError, config_of(tmp_path, path)),
        f"{path}, line 2: no column 'instruction' (the row has 'instruction;context;response'); "
        f"{data.COLUMNS}; mend the row, or leave such rows out with data.on_bad_row=skip",
    )
    assert_says(
        refusal(DataError, config_of(tmp_path, path, "data.on_bad_row=skip")),
        f"data file {path} has no usable row: left out were 6 as missing_column",
    )


# Model folders


def damaged(case: models.Damage, folder: Path) -> Path:
    shutil.copytree(models.sound_model(), folder)
    case.do(folder)
    return folder


@each(models.FOLDERS)
def test_a_damaged_model_folder(case: models.Damage, tmp_path: Path) -> None:
    path, model = tmp_path / "d.jsonl", damaged(case, tmp_path / "model")
    path.write_bytes(data.GOOD)
    message = refusal(case.kind, config_of(tmp_path, path, student=model))
    assert_says(message, case.said, model=model, sound=models.sound_model())


@each(models.TENSORS)
def test_weights_that_are_not_what_the_configuration_says(
    case: models.Damage, tmp_path: Path
) -> None:
    model = damaged(case, tmp_path / "model")
    with pytest.raises(case.kind) as caught:
        TorchScorer(str(model))
    assert_says(str(caught.value), case.said, model=model)


# Answers of a teacher's server


@each(answers.ANSWERS)
def test_a_malformed_answer_of_a_teachers_server(
    case: answers.Malformed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.openai_server.MALFORMED_RETRIES", 0)
    with OpenAiStub() as stub:
        with pytest.raises(case.kind) as caught:
            case.ask(stub, case.reply)
        assert_says(str(caught.value), case.said, url=stub.base_url)


@pytest.mark.parametrize(("what", "listed", "said"), answers.MODEL_LISTS)
def test_a_malformed_list_of_served_models(what: str, listed: Any, said: str) -> None:
    class Stub(OpenAiStub):
        def handle(self, request: Request) -> Answer:
            return Answer(listed) if request.path == "/v1/models" else super().handle(request)

    with Stub() as stub:
        with pytest.raises(DpkdError) as caught:
            answers.start(stub, answers.sound)
        assert_says(str(caught.value), answers.useless(said), url=stub.base_url)


@pytest.mark.parametrize("logprob", [float("nan"), None])
def test_a_served_log_probability_that_is_no_number_is_kept_for_the_queue_to_drop(
    logprob: float | None,
) -> None:
    def reply(body: dict[str, Any]) -> Any:
        answer = answers.sound(body)
        entry = {"logprob": -2.0}
        states = [
            None,
            {"6": {"logprob": logprob}, "1": entry, "2": entry},
            {"7": entry, "1": entry},
        ]
        top = {"token_id:8": -2.0, "token_id:1": -2.0}
        answer["choices"][0] |= {"prompt_logprobs": states, "logprobs": {"top_logprobs": [top]}}
        return answer

    with OpenAiStub() as stub:
        (found,) = answers.scores(stub, reply)
    np.testing.assert_array_equal(found, [np.nan, -2.0, -2.0])
    with OpenAiStub() as stub:
        ((ids, logprobs),) = answers.likeliest(stub, reply)
    assert ids[0].tolist() == [6, 1]
    assert np.isnan(logprobs[0, 0])


# Checkpoints


@each(checkpoints.DAMAGES)
def test_a_malformed_checkpoint(case: checkpoints.Damage, tmp_path: Path) -> None:
    config, path = checkpoints.run_with_a_checkpoint(tmp_path)
    said: list[str] = []
    assert find_origin(config, tmp_path / "run", said.append) is not None
    case.do(path)
    with pytest.raises(DataError, match=r"none of the 1 checkpoints in .* is sound; restore one"):
        find_origin(config, tmp_path / "run", said.append)
    (message,) = said
    assert message.startswith(f"checkpoint {path}")
    assert case.said in message
    assert message.endswith("; trying the one before")


def test_a_ledger_that_is_not_the_checkpoint_s(tmp_path: Path) -> None:
    config, _ = checkpoints.run_with_a_checkpoint(tmp_path)
    ledger = tmp_path / "run" / "events.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"0/0/0", b"0/1/0"))
    with pytest.raises(DataError, match=r"events\.jsonl does not begin as it did at checkpoint"):
        find_origin(config, tmp_path / "run", print)


def test_a_path_without_a_checkpoint(tmp_path: Path) -> None:
    config, _ = checkpoints.run_with_a_checkpoint(tmp_path)
    elsewhere = config.model_copy(update={"resume": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match="nowhere: no checkpoint there; give a checkpoint"):
        find_origin(elsewhere, tmp_path / "run", print)
