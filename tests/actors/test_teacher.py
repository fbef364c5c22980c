"""The teacher server: what is drawn, what is cached, what is scored, and what is refused."""

import json
import pickle
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from actors.malformed import MalformedAnswerError
from actors.model_folder import model_fingerprint
from actors.tokenizer import train_tokenizer
from configs.errors import (
    ConfigError,
    DataError,
    DependencyError,
    NonFiniteError,
    TeacherFailedError,
)
from configs.packing import unpack
from configs.sampling import Sampling
from configs.teacher import TeacherConfig
from configs.wire import Response
from tests.actors.small_teacher import (
    BLACK_BOX,
    PROMPTS,
    VOCAB,
    FakeEngine,
    FakeServer,
    break_token,
    logprobs,
    make_prompt,
    make_server,
    make_trajectory,
    plain_logprobs,
    save_teacher,
)


def test_respond_gives_the_engine_s_response_with_the_teacher_s_log_probabilities(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    engine = FakeEngine()
    responses = make_server(model, tmp_path, engine=engine).respond(PROMPTS)
    assert engine.generated == [[5, 6, 7], [9], [4, 4]]
    for prompt, response in zip(PROMPTS, responses, strict=True):
        expected_T = plain_logprobs(model, prompt.prompt_ids_P, response.ids_T)
        assert response.behaviour_logprobs_T is None  # not drawn by the student
        np.testing.assert_allclose(logprobs(response), expected_T, atol=1e-5)


def test_the_same_prompt_has_the_same_response_in_every_epoch_sample_and_batch(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    engine = FakeEngine()
    server = make_server(model, engine=engine)
    first, twin, other = server.respond(
        [make_prompt(5, 6), make_prompt(5, 6, sample=1), make_prompt(8, ordinal=1)]
    )
    (again,) = server.respond([make_prompt(5, 6, ordinal=77, epoch=4)])
    assert first.ids_T.tolist() == twin.ids_T.tolist() == again.ids_T.tolist()
    assert first.ids_T.tolist() != other.ids_T.tolist()
    assert engine.generated == [[5, 6], [8]]  # once per prompt

    alone = make_server(model, engine=FakeEngine()).respond([make_prompt(5, 6, epoch=9)])[0]
    assert alone.ids_T.tolist() == first.ids_T.tolist()  # nor does it depend on the batch


def test_several_draws_for_a_prompt_are_used_in_turn_by_rows_and_epochs(tmp_path: Path):
    model, engine = save_teacher(tmp_path / "p"), FakeEngine()
    server = make_server(model, engine=engine, draws=2)
    uses = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]  # (ordinal, epoch); the row follows the ordinal
    prompts = [make_prompt(5, 6, ordinal=ordinal, epoch=epoch) for ordinal, epoch in uses]
    drawn = [response.ids_T.tolist() for response in server.respond(prompts)]
    assert drawn[0] == drawn[2] == drawn[4] != drawn[1] == drawn[3]
    assert engine.generated == [[5, 6], [5, 6]]
    once = make_server(model, engine=FakeEngine()).respond(prompts[:1])[0]
    assert once.ids_T.tolist() == drawn[0]  # the first draw is the same however many follow


def test_a_second_run_finds_everything_and_starts_no_engine(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    first = make_server(model, tmp_path / "cache", engine=FakeEngine())
    made = first.respond(PROMPTS)
    assert first.statistics()["cache_misses"] == 3
    first.close()

    second = make_server(model, tmp_path / "cache")  # would raise if it started an engine
    found = second.respond([*PROMPTS, PROMPTS[0]])

    assert second.statistics() == {
        "cache_hits": 4,
        "cache_misses": 0,
        "generated_tokens": 0,
        "scored_tokens": 0,
        "answered_tokens": sum(len(response.ids_T) for response in found),
        "judged_tokens": 0,
        "cache_corrupt": 0,
        "cache_failures": 0,
    }
    for old, new in zip(made, found, strict=False):
        assert old.ids_T.tolist() == new.ids_T.tolist()
        assert logprobs(old).tobytes() == logprobs(new).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"sampling": Sampling(temperature=0.7, top_p=1.0, max_new_tokens=8)},
        {"sampling": Sampling(temperature=1.0, top_p=0.9, max_new_tokens=8)},
        {"sampling": Sampling(temperature=1.0, top_p=1.0, max_new_tokens=7)},
        {"dtype": "bfloat16"},
        {"max_model_len": 16},
    ],
)
def test_another_way_of_drawing_is_another_entry(tmp_path: Path, change: dict):
    model = save_teacher(tmp_path / "p")
    make_server(model, tmp_path, engine=FakeEngine()).respond(PROMPTS)
    server = make_server(model, tmp_path, engine=FakeEngine(), **change)
    server.respond(PROMPTS)
    assert server.statistics()["cache_misses"] == 3


def test_a_greedy_response_is_shared_by_runs_of_every_seed(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    greedy = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=8)
    first = make_server(model, tmp_path, engine=FakeEngine(), sampling=greedy, seed=1)
    made = first.respond(PROMPTS)
    second = make_server(model, tmp_path, sampling=greedy, seed=2)  # has no engine to ask
    read = second.respond(PROMPTS)
    assert [one.ids_T.tolist() for one in read] == [one.ids_T.tolist() for one in made]
    assert second.statistics()["cache_misses"] == 0


def test_another_teacher_never_reads_the_first_one_s_responses(tmp_path: Path):
    one, two = save_teacher(tmp_path / "one"), save_teacher(tmp_path / "two", seed=1)
    make_server(one, tmp_path, engine=FakeEngine()).respond(PROMPTS)
    server = make_server(two, tmp_path, engine=FakeEngine())
    server.respond(PROMPTS)
    assert server.statistics()["cache_misses"] == 3
    assert len(list(tmp_path.glob("teacher-*.sqlite3"))) == 2


def test_the_fingerprint_follows_content_and_not_names_or_dates(tmp_path: Path):
    one, twin = Path(save_teacher(tmp_path / "one")), Path(save_teacher(tmp_path / "twin"))
    fingerprint = model_fingerprint(one, dtype="float32")
    assert len(fingerprint) == 32
    assert model_fingerprint(twin, dtype="float32") == fingerprint
    assert model_fingerprint(one, dtype="bfloat16") != fingerprint
    (twin / "README.md").write_text("says nothing about log p")
    assert model_fingerprint(twin, dtype="float32") == fingerprint
    weights = bytearray((twin / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (twin / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(twin, dtype="float32") != fingerprint
    config = json.loads((one / "config.json").read_text()) | {"layer_norm_epsilon": 0.1}
    (one / "config.json").write_text(json.dumps(config))
    assert model_fingerprint(one, dtype="float32") != fingerprint


def test_a_damaged_entry_is_made_again_and_counted(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    made = make_server(model, tmp_path, engine=FakeEngine()).respond(PROMPTS)
    (path,) = tmp_path.glob("teacher-*.sqlite3")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE responses SET record = substr(record, 1, 30) WHERE rowid = 1")
    connection.close()

    engine = FakeEngine()
    server = make_server(model, tmp_path, engine=engine)
    again = server.respond(PROMPTS)

    assert [r.ids_T.tolist() for r in again] == [r.ids_T.tolist() for r in made]
    assert engine.generated == [[5, 6, 7]]
    assert server.statistics()["cache_corrupt"] == 1
    assert server.statistics()["cache_hits"] == 2


def test_cache_off_writes_nothing_but_still_draws_once_a_run(tmp_path: Path):
    model, engine = save_teacher(tmp_path / "p"), FakeEngine()
    server = make_server(model, tmp_path / "cache", engine=engine, cache=False)
    server.respond(PROMPTS)
    server.respond(PROMPTS)
    assert len(engine.generated) == 3
    assert not (tmp_path / "cache").exists()


def test_gold_responses_start_no_engine_and_are_scored_once(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    prompts = [make_prompt(5, 6, gold=[7, 8, 1]), make_prompt(5, 6, ordinal=1, gold=[9, 1])]
    server = make_server(model, tmp_path, source="gold")
    responses = server.respond(prompts)
    assert [response.ids_T.tolist() for response in responses] == [[7, 8, 1], [9, 1]]
    assert {response.finish_reason for response in responses} == {"stop"}
    for prompt, response in zip(prompts, responses, strict=True):
        expected_T = plain_logprobs(model, prompt.prompt_ids_P, response.ids_T)
        np.testing.assert_allclose(logprobs(response), expected_T, atol=1e-5)
    server.respond(prompts)
    assert server.statistics()["scored_tokens"] == 5
    assert server.statistics()["cache_hits"] == 2


def test_a_row_without_a_gold_response_is_named(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "p"), source="gold")
    with pytest.raises(DataError, match=r"row 107 has no gold response"):
        server.respond([make_prompt(5, gold=[1]), make_prompt(5, ordinal=7)])


def test_a_black_box_teacher_scores_nothing_and_a_later_run_reuses_its_responses(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    black_box = make_server(model, tmp_path, engine=FakeEngine(), needs=BLACK_BOX)
    drawn = black_box.respond(PROMPTS)
    student = [make_trajectory(p, 3, 1) for p in PROMPTS]
    (item, *_) = unpack(black_box.judge(PROMPTS, drawn, student).batch)
    assert drawn[0].teacher_logprobs_T is None
    assert item.student_response is not None and item.student_response.teacher_logprobs_T is None
    assert item.teacher_first_token_logprobs_V is None
    assert black_box.statistics()["scored_tokens"] == 0

    white_box = make_server(model, tmp_path)  # draws nothing: it would start an engine
    scored = white_box.respond(PROMPTS)
    assert [r.ids_T.tolist() for r in scored] == [r.ids_T.tolist() for r in drawn]
    assert all(r.teacher_logprobs_T is not None for r in scored)
    third = make_server(model, tmp_path)
    third.respond(PROMPTS)
    assert third.statistics()["scored_tokens"] == 0


def test_a_gold_black_box_needs_neither_engine_nor_cache(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "p"), source="gold", needs=BLACK_BOX)
    (response,) = server.respond([make_prompt(5, gold=[7, 1])])
    assert response.ids_T.tolist() == [7, 1] and response.teacher_logprobs_T is None


def test_evaluation_generations_are_seeded_by_uid_and_never_cached(tmp_path: Path):
    model, engine = save_teacher(tmp_path / "p"), FakeEngine()
    server = make_server(model, tmp_path, engine=engine)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)
    prompts = [make_prompt(5, 6, sample=0), make_prompt(5, 6, sample=1)]
    first, second = server.generate(prompts, sampling)
    (again,) = server.generate(prompts[1:], sampling)
    assert first.ids_T.tolist() != second.ids_T.tolist() == again.ids_T.tolist()
    assert first.behaviour_logprobs_T is None
    assert logprobs(first)[0] == -3.0
    assert len(engine.generated) == 3
    assert server.statistics()["cache_misses"] == 0


def test_seeds_change_with_the_run_and_fit_sixty_three_bits(tmp_path: Path):
    model, engines = save_teacher(tmp_path / "p"), [FakeEngine(), FakeEngine()]
    for seed, engine in enumerate(engines):
        make_server(model, engine=engine, seed=seed).respond(PROMPTS)
    assert len({*engines[0].seeds, *engines[1].seeds}) == 6
    assert all(0 <= seed < 2**63 for engine in engines for seed in engine.seeds)


def test_the_vllm_scorer_shares_the_engine_and_refuses_first_token_distributions(tmp_path: Path):
    model, engine = save_teacher(tmp_path / "p"), FakeEngine()
    server = make_server(model, engine=engine, scorer="vllm", first_token_distribution=False)
    prompt = make_prompt(5, 6, 7)
    answers, drawn = server.respond([prompt]), [make_trajectory(prompt, 3, 1)]
    (item,) = unpack(server.judge([prompt], answers, drawn).batch)
    assert logprobs(item.student_response).tolist() == [-3.0, -4.0]
    with pytest.raises(ValidationError, match=r"set teacher\.first_token_distribution=false"):
        TeacherConfig.model_validate({"scorer": "vllm"})


@pytest.mark.parametrize("bad_id", [VOCAB, -1])
def test_a_token_outside_the_vocabulary_names_the_prompt(tmp_path: Path, bad_id: int):
    server = make_server(save_teacher(tmp_path / "p"), engine=FakeEngine())
    message = rf"prompt 0/4/0 \(row 104\) holds token id .*vocabulary of {VOCAB}"
    with pytest.raises(DataError, match=message):
        server.respond([make_prompt(5), make_prompt(5, bad_id, ordinal=4)])
    prompt = make_prompt(5, ordinal=4)
    with pytest.raises(DataError, match=message):
        server.judge([prompt], [], [make_trajectory(prompt, 3, bad_id)])


def test_a_sequence_longer_than_the_teacher_s_context_names_the_prompt(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "p"), engine=FakeEngine())
    prompt = make_prompt(*[5] * 30, ordinal=4)
    server.score_responses([prompt], [make_trajectory(prompt, 1, 2).response])  # 32 just fits
    with pytest.raises(DataError, match=r"prompt 0/4/0 \(row 104\) makes 33 tokens.*of 32"):
        server.score_responses([prompt], [make_trajectory(prompt, 1, 2, 3).response])
    with pytest.raises(DataError, match=r"makes 32 tokens, too long"):
        server.respond([make_prompt(*[5] * 32, ordinal=4)])


def test_a_log_probability_that_is_none_stays_in_its_tuple_and_is_not_cached(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    break_token(model, 9)  # the second prompt's only token
    server = make_server(model, tmp_path, engine=FakeEngine())
    answers = server.respond(PROMPTS)
    assert [np.isnan(logprobs(answer)).all() for answer in answers] == [False, True, False]

    drawn = [make_trajectory(prompt, 3) for prompt in PROMPTS]
    heads, packed = server.judge(PROMPTS, answers, drawn)

    assert [head.finite for head in heads] == [True, False, True]
    assert np.isnan(logprobs(unpack(packed)[1].student_response)).all()
    again = make_server(model, tmp_path, engine=FakeEngine())
    again.respond(PROMPTS)
    assert again.statistics()["cache_hits"] == 2
    assert again.statistics()["cache_misses"] == 1


def test_a_log_probability_that_is_none_is_an_error_in_an_evaluation(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    break_token(model, 9)
    server = make_server(model, needs=BLACK_BOX)
    responses = [make_trajectory(prompt, 3).response for prompt in PROMPTS]
    with pytest.raises(NonFiniteError, match=r"for 0/1/0 \(row 101\) are not finite"):
        server.score_responses(PROMPTS, responses)


def test_a_teacher_that_gives_no_numbers_is_an_error_at_the_start_where_they_are_needed(
    tmp_path: Path,
):
    model = save_teacher(tmp_path / "p")
    break_token(model, 0)
    with pytest.raises(NonFiniteError, match=rf"teacher {model} gives .* not finite; check its we"):
        make_server(model, engine=FakeEngine()).warm_up()
    make_server(model, engine=FakeEngine(), needs=BLACK_BOX).warm_up()


class BalkingEngine(FakeServer):
    """Has no usable answer to prompts of one token, and no score for sequences of five."""

    def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Response]:
        _balk(len(prompt) == 1 for prompt in prompts)
        return super().generate(prompts, sampling=sampling, seeds=seeds)

    def prompt_logprobs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        _balk(len(ids) == 5 for ids in sequences)
        return super().prompt_logprobs(sequences)


def _balk(whether: Iterable[bool]) -> None:
    if bad := tuple(index for index, does in enumerate(whether) if does):
        raise MalformedAnswerError("the server's answer cannot be used", bad)


def test_prompts_without_a_usable_answer_are_named_by_their_uids():
    server = make_server(
        None,
        engine=BalkingEngine(),
        type="openai",
        base_url="http://127.0.0.1:9/v1",
        model="big",
        tokens="ids",
    )
    with pytest.raises(TeacherFailedError, match=r"^the server's answer cannot be used$") as caught:
        server.respond(PROMPTS)
    assert caught.value.uids == (PROMPTS[1].uid,)
    # It reaches the driver from another process.
    assert pickle.loads(pickle.dumps(caught.value)).uids == (PROMPTS[1].uid,)
    answered = [PROMPTS[0], PROMPTS[2]]
    drawn = [make_trajectory(PROMPTS[0], 3), make_trajectory(PROMPTS[2], 3, 4, 5)]
    with pytest.raises(TeacherFailedError) as caught:
        server.judge(answered, server.respond(answered), drawn)
    assert caught.value.uids == (PROMPTS[2].uid,)


def test_a_vocabulary_that_does_not_cover_the_tokenizer_is_an_error_at_the_start(tmp_path: Path):
    tokenizer = train_tokenizer(["some words"], 300, tmp_path / "tokenizer")
    server = make_server(
        save_teacher(tmp_path / "p"), engine=FakeEngine(), needs=BLACK_BOX, tokenizer=tokenizer
    )
    message = rf"vocabulary of {VOCAB}, fewer than the {len(tokenizer)} tokens .* teacher\.model"
    with pytest.raises(ConfigError, match=message):
        server.warm_up()


def test_a_hub_model_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DependencyError, match="model nobody/nothing is neither a folder nor"):
        make_server("nobody/nothing")


def test_a_config_that_is_no_config_is_named(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    (tmp_path / "p" / "config.json").write_text('{"model_type": "gpt2", "n_positions": "long"}')
    with pytest.raises(DependencyError, match=rf"teacher {model}: config\.json cannot be used"):
        make_server(model)


def test_close_ends_the_engine_that_was_started(tmp_path: Path):
    model, engine = save_teacher(tmp_path / "p"), FakeEngine()
    server = make_server(model, tmp_path, engine=engine)
    server.warm_up()
    assert engine.warm and not engine.closed
    server.close()
    assert engine.closed
    make_server(model, tmp_path).close()  # nothing started: nothing to end


def test_only_what_the_objective_needs_is_started(tmp_path: Path):
    model = save_teacher(tmp_path / "p")
    make_server(model, needs=("student_response", "teacher_logprobs")).warm_up()  # no engine
    make_server(model, source="gold").warm_up()
    engine = FakeEngine()
    black_box = make_server(model, engine=engine, needs=BLACK_BOX)
    (tmp_path / "p" / "model.safetensors").write_bytes(b"")  # no scorer can be loaded any more
    black_box.warm_up()
    assert engine.warm


def test_empty_calls_start_nothing(tmp_path: Path):
    server = make_server(save_teacher(tmp_path / "p"), tmp_path)
    assert server.respond([]) == []
    assert server.judge([], [], []) == ([], [])
    assert server.generate([], Sampling(temperature=0.0, top_p=1.0, max_new_tokens=8)) == []
