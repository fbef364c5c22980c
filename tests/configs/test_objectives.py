"""What every objective says it needs, and what is refused because of it."""

import re
from typing import Any

import pytest

from configs.objective import SftConfig
from configs.run import RunConfig

LOGPROBS = {"teacher_logprobs"}
DISTRIBUTION = {"teacher_logprobs", "teacher_distribution"}
PAIR = {"teacher_response", "student_response"}
NEEDS: list[tuple[dict[str, Any], set[str]]] = [
    ({"type": "dpkd"}, PAIR | LOGPROBS),
    ({"type": "dpkd", "level": "token"}, {"teacher_response"} | DISTRIBUTION),
    ({"type": "dpkd", "level": "token", "states": "student"}, {"student_response"} | DISTRIBUTION),
    ({"type": "ipo"}, PAIR | LOGPROBS),
    ({"type": "cpo"}, PAIR),
    ({"type": "simpo"}, PAIR),
    ({"type": "plad"}, PAIR),
    ({"type": "plad", "form": "margin"}, PAIR | {"response_score"}),
    ({"type": "dadpo"}, PAIR | LOGPROBS | {"reference_logprobs"}),
    ({"type": "dadpo", "beta_reference": 0.0}, PAIR | LOGPROBS),
    ({"type": "dadpo", "beta_teacher": 0.0}, PAIR | {"reference_logprobs"}),
    ({"type": "ddpo"}, PAIR | {"reference_logprobs"}),
    ({"type": "sft"}, {"gold"}),
    ({"type": "seqkd"}, {"teacher_response"}),
    ({"type": "kd"}, {"teacher_response"} | DISTRIBUTION),
    ({"type": "kd", "states": "student"}, {"student_response"} | DISTRIBUTION),
    ({"type": "reverse_kl"}, {"student_response"} | DISTRIBUTION),
    ({"type": "gkd"}, PAIR | DISTRIBUTION),
    ({"type": "gkd", "on_policy_share": 1.0}, {"student_response"} | DISTRIBUTION),
    ({"type": "akl"}, {"teacher_response"} | DISTRIBUTION),
    ({"type": "minillm"}, PAIR | DISTRIBUTION),
    ({"type": "minillm", "single_step": False}, PAIR | LOGPROBS),
    ({"type": "opd"}, {"student_response"} | LOGPROBS),
]
TEXT_TEACHER = {"type": "openai", "model": "served"}
IDS_TEACHER = TEXT_TEACHER | {"tokens": "ids"}


def config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"student": {"model": "s"}, "teacher": {"model": "t"}, **sections}
    )


@pytest.mark.parametrize(("objective", "needs"), NEEDS, ids=lambda value: str(value)[:60])
def test_an_objective_declares_what_it_needs(objective: dict[str, Any], needs: set[str]) -> None:
    assert config(objective=objective).objective.needs == needs


@pytest.mark.parametrize("kind", ["dpkd", "ipo", "dadpo", "kd", "gkd", "minillm", "opd"])
def test_a_text_teacher_cannot_serve_an_objective_on_its_log_probabilities(kind: str) -> None:
    with pytest.raises(ValueError, match=f"objective.type={kind} needs teacher_.*gives text only"):
        config(objective={"type": kind}, teacher=TEXT_TEACHER)


@pytest.mark.parametrize("kind", ["seqkd", "plad", "cpo", "simpo", "ddpo"])
def test_a_text_teacher_serves_objectives_on_text(kind: str) -> None:
    assert config(objective={"type": kind}, teacher=TEXT_TEACHER).uses_teacher


def test_more_top_tokens_than_the_server_allows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"distribution_top_k \(64\) is more than .*\(20\)"):
        config(objective={"type": "kd"}, teacher=IDS_TEACHER | {"distribution_top_k": 64})
    config(objective={"type": "kd"}, teacher=IDS_TEACHER)
    with pytest.raises(ValueError, match=r"distribution_top_k \(the vocabulary\)"):
        config(objective={"type": "kd"}, teacher=IDS_TEACHER | {"distribution_top_k": None})


def test_more_top_tokens_than_a_made_vocabulary_are_refused() -> None:
    made = {"make": {}, "warm_start": {}}
    sections: dict[str, Any] = {"student": made, "data": {"tokenizer_vocab": 400}}

    def of(kind: str, top_k: int | None) -> RunConfig:
        teacher = made | {"distribution_top_k": top_k}
        return config(objective={"type": kind}, teacher=teacher, **sections)

    with pytest.raises(ValueError, match=r"distribution_top_k \(401\) is more than .* \(400\)"):
        of("kd", 401)
    of("kd", 400)
    of("kd", None)
    of("dpkd", 401)  # nobody asks for them


WEIGHED = [
    ("opd", "student", {"temperature": 0.5}, "student.sampling.temperature is 0.5"),
    ("opd", "student", {"top_p": 0.9}, "student.sampling.top_p is 0.9"),
    ("minillm", "student", {"temperature": 1.25}, "student.sampling.temperature is 1.25"),
    ("minillm", "teacher", {"temperature": 0.0}, "teacher.sampling.temperature is 0.0"),
    ("minillm", "teacher", {"top_p": 0.9}, "teacher.sampling.top_p is 0.9"),
]


@pytest.mark.parametrize(("kind", "role", "sampling", "said"), WEIGHED)
def test_importance_weights_of_another_distribution_than_was_drawn_from_are_refused(
    kind: str, role: str, sampling: dict[str, float], said: str
) -> None:
    drawn = {role: {"model": "m", "sampling": sampling}}
    key, _, _ = said.partition(" is ")
    with pytest.raises(ValueError, match=re.escape(f"{said}; set {key}=1")):
        config(objective={"type": kind}, **drawn)
    config(objective={"type": "reverse_kl"}, **drawn)


def test_only_responses_that_are_weighed_must_be_drawn_plainly() -> None:
    sharp = {"model": "t", "sampling": {"temperature": 0.5}}
    config(objective={"type": "opd"}, teacher=sharp)
    config(objective={"type": "minillm", "teacher_share": 0.0}, teacher=sharp)
    with pytest.raises(ValueError, match=r"teacher\.response is gold; set .*=generate"):
        config(objective={"type": "minillm"}, teacher={"model": "t", "response": "gold"})


def test_distributions_that_the_queue_could_not_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"more than replay\.max_bytes"):
        config(objective={"type": "kd"}, replay={"max_bytes": 2048})
    made = {"make": {}, "warm_start": {}}
    whole = {"objective": {"type": "kd"}, "student": made}
    whole |= {"teacher": made | {"distribution_top_k": None}}
    config(**whole)
    with pytest.raises(ValueError, match=r"lower teacher\.distribution_top_k"):
        config(**whole, data={"tokenizer_vocab": 300_000})


def test_a_step_holds_whole_groups_of_samples() -> None:
    with pytest.raises(ValueError, match=r"multiple of negatives\.samples \(3\)"):
        config(learner={"batch_size": 32}, negatives={"samples": 3})


@pytest.mark.parametrize(
    ("negatives", "said"),
    [
        ({"type": "snapshot"}, "negatives.every is missing"),
        ({"type": "fresh", "every": 4}, "negatives.every has no meaning for fresh"),
        ({"type": "initial", "offline_share": 0.5}, "draws every y_s offline already"),
    ],
)
def test_negatives_that_contradict_themselves_are_refused(
    negatives: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        config(negatives=negatives)


@pytest.mark.parametrize(
    ("negatives", "lag", "bound"),
    [
        ({}, 2, 2),
        ({"type": "snapshot", "every": 8}, 0, 7),
        ({"type": "snapshot", "every": 8}, 2, 9),
        ({"type": "initial"}, 0, 50),
        ({"offline_share": 0.25}, 1, 50),
    ],
)
def test_the_oldest_response_that_is_learned_from(
    negatives: dict[str, Any], lag: int, bound: int
) -> None:
    made = config(negatives=negatives, replay={"max_policy_lag": lag}, learner={"steps": 50})
    assert made.lag_bound == bound


def test_only_what_is_needed_runs() -> None:
    sft = config(objective={"type": "sft"}, evaluation={"generate": False})
    assert (sft.uses_sampler, sft.uses_teacher) == (False, False)
    looked_at = config(objective={"type": "sft"})
    assert (looked_at.uses_sampler, looked_at.uses_teacher) == (True, True)
    assert not looked_at.learns_from_student and not looked_at.learns_from_teacher
    blind = config(objective={"type": "seqkd"}, evaluation={"generate": False})
    assert (blind.uses_sampler, blind.uses_teacher) == (False, True)
    assert not config(objective={"type": "seqkd"}, teacher=TEXT_TEACHER).evaluates_reverse_kl


def test_settings_of_one_level_of_dpkd_are_refused_at_the_other() -> None:
    with pytest.raises(ValueError, match="settings of level=token"):
        config(objective={"type": "dpkd", "states": "student"})
    with pytest.raises(ValueError, match="setting of level=sequence"):
        config(objective={"type": "dpkd", "level": "token", "length_normalised": False})


def test_a_chat_template_inside_a_chat_message_is_refused() -> None:
    served = {**TEXT_TEACHER, "api": "chat"}
    config(objective={"type": "seqkd"}, teacher=served)
    with pytest.raises(ValueError, match=r"data\.template=null writes the student's chat template"):
        config(objective={"type": "seqkd"}, teacher=served, data={"template": None})


def test_a_server_never_gives_the_first_tokens_distribution() -> None:
    with pytest.raises(ValueError, match="no server gives the first token"):
        config(
            objective={"type": "seqkd"}, teacher=TEXT_TEACHER | {"first_token_distribution": True}
        )


@pytest.mark.parametrize(
    ("pattern", "said"), [("#### .+", "must have one group"), ("(", "is no regular expression")]
)
def test_an_answer_pattern_has_one_group(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(evaluation={"answer_pattern": pattern})


def test_negatives_of_an_objective_that_has_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"objective\.type=seqkd learns from none"):
        config(objective={"type": "seqkd"}, negatives={"type": "initial"})


def test_a_cuda_transport_cannot_bring_a_snapshot_back() -> None:
    with pytest.raises(ValueError, match=r"cannot bring back the snapshot .*use object_store"):
        config(student={"model": "s", "weight_transfer": "nccl"}, negatives={"type": "initial"})


def test_negatives_are_of_objectives_that_learn_from_the_student():
    pairs = config(negatives={"samples": 2, "offline_share": 0.5})
    supervised = pairs.model_copy(update={"objective": SftConfig()})  # as a warm start is
    assert (pairs.samples_per_prompt, pairs.draws_offline) == (2, True)
    assert (supervised.samples_per_prompt, supervised.draws_offline) == (1, False)


@pytest.mark.parametrize("key", ["beta", "lm_weight"])
def test_settings_are_finite(key: str):
    with pytest.raises(ValueError, match="finite number"):
        config(objective={"type": "dpkd", key: float("inf")})
