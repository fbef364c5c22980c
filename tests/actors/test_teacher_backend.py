"""What stands behind a teacher: real vLLM, and servers, as ``TeacherServer`` uses them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.teacher import TeacherServer
from actors.tokenizer import train_tokenizer
from configs.packing import unpack
from configs.sampling import Sampling
from configs.teacher import OpenAiTeacherConfig, TeacherConfig
from configs.wire import Uid
from tests.actors.openai_stub import OpenAiStub, small_tokenizer
from tests.actors.small_teacher import (
    BLACK_BOX,
    PROMPTS,
    VOCAB,
    WHITE_BOX,
    FakeServer,
    logprobs,
    make_prompt,
    make_server,
    make_trajectory,
    save_teacher,
    top,
)

SERVED = {"type": "openai", "model": "big", "tokens": "ids", "distribution_top_k": 4}


def test_a_served_teacher_answers_scores_and_is_closed(tmp_path: Path):
    server = FakeServer()
    teacher = make_server(None, tmp_path, engine=server, **SERVED)
    teacher.warm_up()
    answers = teacher.respond(PROMPTS[:1])
    assert server.generated == [[5, 6, 7]]
    assert logprobs(answers[0])[0] == -3.0  # the third of the sequence, by FakeEngine
    (item,) = unpack(teacher.judge(PROMPTS[:1], answers, [make_trajectory(PROMPTS[0], 3, 1)]).batch)
    assert logprobs(item.student_response).tolist() == [-3.0, -4.0]
    assert item.teacher_first_token_logprobs_V is None
    teacher.close()
    assert server.closed
    assert [path.name for path in tmp_path.iterdir()] == ["teacher-5e1f.sqlite3"]


def test_a_real_server_is_asked_once_for_a_prompt_s_answer(tmp_path: Path):
    with OpenAiStub() as stub:
        settings = {"type": "openai", "model": "big", "base_url": stub.base_url, "key_env": None}
        config = OpenAiTeacherConfig.model_validate(settings)
        answers = []
        for _ in range(2):
            teacher = TeacherServer(
                config,
                model=None,
                seed=0,
                cache_folder=tmp_path,
                needs=frozenset({"teacher_response"}),
                response="generate",
                tokenizer=small_tokenizer(),
            )
            teacher.warm_up()
            answers.append(teacher.respond([make_prompt(5, 6), make_prompt(7, ordinal=1)]))
            counts = teacher.statistics()
            teacher.close()
    assert counts["cache_hits"] == 2
    texts = [small_tokenizer().decode(r.ids_T, skip_special_tokens=True) for r in answers[0]]
    assert texts == [" answer", " answer"]
    assert [r.ids_T.tolist() for r in answers[1]] == [r.ids_T.tolist() for r in answers[0]]


def test_the_cache_of_a_served_teacher_knows_model_endpoint_and_tokenizer(tmp_path: Path):
    tokenizers = [
        train_tokenizer([text], 300, tmp_path / text) for text in ("aaaa bbbb", "cccc dddd")
    ]

    def misses(fingerprint: str = "1", tokenizer: int = 0, **config: object) -> float:
        server = make_server(
            None,
            tmp_path / "cache",
            engine=FakeServer(fingerprint),
            needs=BLACK_BOX,
            tokenizer=tokenizers[tokenizer],
            **{**SERVED, "tokens": "text", **config},
        )
        server.respond(PROMPTS)
        server.close()
        return server.statistics()["cache_misses"]

    assert misses() == 3
    assert misses() == 0
    assert misses(fingerprint="2") == 3
    assert misses(tokenizer=1) == 3
    assert misses(api="chat") == 3
    assert misses(tokens="ids") == 3
    assert misses(tokens="ids", tokenizer=1) == 0  # no text was made


@pytest.mark.engine
def test_real_vllm_draws_the_same_response_twice_and_both_scorers_agree(tmp_path: Path):
    from actors.vllm_environment import vllm_environment

    with pytest.MonkeyPatch.context() as patch:
        for name, value in vllm_environment(threads=1, kv_cache_gib=0.25).items():
            patch.setenv(name, value)
        model = save_teacher(tmp_path / "p")
        sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)
        config = TeacherConfig(sampling=sampling, first_token_distribution=False)
        made = {"model": model, "seed": 0, "cache_folder": None, "response": "generate"}
        by_torch = TeacherServer(config, needs=frozenset(WHITE_BOX), **made)
        responses = by_torch.respond(PROMPTS)
        by_vllm = TeacherServer(
            config.model_copy(update={"scorer": "vllm"}),
            needs=frozenset(WHITE_BOX),
            start_engine=by_torch._backend.engine,
            **made,
        )
        again = by_vllm.respond([replace(p, uid=Uid(1, 9, 0)) for p in reversed(PROMPTS)])
        for left, right in zip(responses, reversed(again), strict=True):
            assert left.ids_T.tolist() == right.ids_T.tolist()
            np.testing.assert_allclose(logprobs(left), logprobs(right), atol=1e-4)
        generated = by_torch.generate(PROMPTS, sampling)
        scored, _ = by_torch.score_responses(PROMPTS, generated)
        for left, right in zip(generated, scored, strict=True):
            np.testing.assert_allclose(logprobs(left), logprobs(right), atol=1e-4)
        by_torch.close()


@pytest.mark.engine
@pytest.mark.parametrize("top_k", [30, None])
def test_real_vllm_and_torch_give_the_same_distributions(tmp_path: Path, top_k: int | None):
    from actors.vllm_environment import vllm_environment

    with pytest.MonkeyPatch.context() as patch:
        for name, value in vllm_environment(threads=1, kv_cache_gib=0.25).items():
            patch.setenv(name, value)
        model = save_teacher(tmp_path / "p")
        drawn = [make_trajectory(prompt, 3, 60, 1) for prompt in PROMPTS]
        tuples = []
        for scorer in ("torch", "vllm"):
            server = TeacherServer(
                TeacherConfig(
                    scorer=scorer, first_token_distribution=False, distribution_top_k=top_k
                ),
                model=model,
                seed=0,
                cache_folder=None,
                needs=frozenset({"student_response", "teacher_logprobs", "teacher_distribution"}),
                response="generate",
            )
            server.warm_up()
            tuples.append(unpack(server.judge(PROMPTS, [], drawn).batch))
            server.close()
        for left, right in zip(*tuples, strict=True):
            (ids, values), (other_ids, others) = (
                top(item.student_response) for item in (left, right)
            )
            assert ids.shape == other_ids.shape == (3, top_k or VOCAB)
            assert (ids == other_ids).all()
            np.testing.assert_allclose(values, others, atol=1e-4)
            np.testing.assert_allclose(
                logprobs(left.student_response), logprobs(right.student_response), atol=1e-4
            )
