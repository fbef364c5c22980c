"""What a served teacher's settings may be."""

import pytest
from pydantic import ValidationError

from configs.teacher import OpenAiTeacherConfig


def served(**settings: object) -> OpenAiTeacherConfig:
    return OpenAiTeacherConfig.model_validate({"type": "openai", "model": "big", **settings})


def test_only_a_teacher_of_ids_gives_log_probabilities():
    assert served(tokens="ids").gives_logprobs
    assert not served(tokens="text").gives_logprobs
    assert not served().gives_logprobs


def test_by_default_no_more_likeliest_tokens_are_asked_than_a_server_allows():
    config = served(tokens="ids")
    assert config.distribution_top_k == config.max_logprobs == 20
    assert not config.first_token_distribution


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000/v1",
        "ftp://teacher/v1",
        "http://",
        "https:///v1",
        "http://[::1/v1",
        "http://teacher:http/v1",
        "http://teacher:99999/v1",
    ],
)
def test_an_address_is_http_and_a_host(url: str):
    with pytest.raises(ValidationError, match=r"base_url|Invalid IPv6"):
        served(base_url=url)
    assert served(base_url="https://teacher.example:8443/v1").base_url.endswith("/v1")


def test_an_address_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(ValidationError) as caught:
        served(base_url="https://user:s3cret@teacher/v1")
    (problem,) = caught.value.errors(include_input=False)
    assert "put an API key into teacher.key_file" in problem["msg"]
    assert "s3cret" not in problem["msg"]


def test_chat_takes_text():
    assert served(api="chat").tokens == "text"
    with pytest.raises(ValidationError, match=r"set teacher\.tokens=text"):
        served(api="chat", tokens="ids")


def test_no_server_gives_a_whole_distribution():
    with pytest.raises(ValidationError, match="first token's whole distribution"):
        served(tokens="ids", first_token_distribution=True)


@pytest.mark.parametrize("one", [{"response": "gold"}, {"sampling": {"temperature": 0}}])
def test_several_draws_are_not_asked_of_what_gives_one(one: dict[str, object]):
    with pytest.raises(ValidationError, match=r"leave teacher\.draws out"):
        served(draws=2, **one)
    assert served(draws=2).draws == 2
