"""`python -m orchestration.advantage_picture`: draw beta log q/p of every token of a real pair.

A teacher response y_t and a student response y_s to one prompt are drawn with plain
transformers, both models score both, and the tokens are laid out and coloured by their
advantage. See docs/mdp.md for what that number is, and is not.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from configs.data import Columns, DataConfig
from configs.errors import DataError, DpkdError, NonFiniteError
from configs.load import load
from configs.run import RunConfig
from configs.sampling import Sampling
from orchestration.command import natural
from orchestration.token_picture import Legend, TokenRow, signed, token_picture

if TYPE_CHECKING:
    import torch

END = "⟨end⟩"
NOTES = (
    "A number is the token's advantage under the student's own reward, not the token's reward: "
    "credit per token is known only up to potential shaping.",
    "No gap before a token: the text has no space there.",
)


class Pair(NamedTuple):
    """The two models and the prompt that both answer."""

    student: Any
    teacher: Any
    tokenizer: Any
    prompt_P: "torch.Tensor"
    """(P,) int64."""


class Answers(NamedTuple):
    """What both models answered to one prompt, as text."""

    prompt: str
    teacher: str
    student: str


def open_models(student: str, teacher: str) -> tuple[Any, Any, Any]:
    """Load student, teacher and tokenizer. Raises ConfigError where the tokenizers differ."""
    from actors.tokenizer import load_tokenizer, require_same_tokenizer

    tokenizer = load_tokenizer(student)
    require_same_tokenizer(load_tokenizer(teacher), tokenizer)
    return _model(student), _model(teacher), tokenizer


def draw_answers(models: tuple[Any, Any, Any], answers: Answers, beta: float) -> str:
    """Return the SVG of a pair that was drawn before, tokenised anew from its texts."""
    import torch

    def ids(text: str) -> "torch.Tensor":
        return torch.tensor(tokenizer.encode(text, add_special_tokens=False), dtype=torch.int64)

    student, teacher, tokenizer = models
    end = torch.tensor([tokenizer.eos_token_id])
    pair = Pair(student, teacher, tokenizer, ids(answers.prompt))
    responses = [torch.cat([ids(text), end]) for text in (answers.teacher, answers.student)]
    titles = ["Teacher's response y_t", "Student's response y_s"]
    return _draw_rows(pair, titles, responses, beta=beta, context=answers.prompt)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        config = load(options.recipe)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(_picture(options, config), encoding="utf-8")
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(f"wrote {options.out}")  # noqa: T201
    return 0


def _picture(options: argparse.Namespace, config: RunConfig) -> str:
    student, teacher, tokenizer = open_models(options.student, options.teacher)
    context = min(model.config.max_position_embeddings for model in (student, teacher))
    prompt, prompt_P = _prompt(options, config, tokenizer, context)
    pair = Pair(student, teacher, tokenizer, prompt_P)
    sides = (
        ("Teacher's response y_t", teacher, config.teacher.sampling),
        ("Student's response y_s", student, config.student.sampling),
    )
    responses = [_draw(pair, model, sampling, options.seed) for _, model, sampling in sides]
    titles = [
        f"{name}, drawn at temperature {sampling.temperature:g}" for name, _, sampling in sides
    ]
    return _draw_rows(pair, titles, responses, beta=options.beta, context=prompt)


def _draw_rows(
    pair: Pair,
    titles: Sequence[str],
    responses: Sequence["torch.Tensor"],
    *,
    beta: float,
    context: str,
) -> str:
    """Return the SVG of y_t and y_s, in this order."""
    values = [_advantages(pair, response_T, beta) for response_T in responses]
    rows = [_row(pair, *row) for row in zip(titles, responses, values, strict=True)]
    legend = Legend(
        title=f"Advantage β log q/p of every token (β = {beta:g})",
        negative="teacher p gives it more probability",
        positive="student q gives it more",
    )
    return token_picture(rows, legend, context=context, notes=(_margins(*values), *NOTES))


def _row(
    pair: Pair, title: str, response_T: "torch.Tensor", advantage_T: Sequence[float]
) -> TokenRow:
    total, length = sum(advantage_T), len(advantage_T)
    texts = [
        END if token == pair.tokenizer.eos_token_id else pair.tokenizer.decode([token])
        for token in response_T.tolist()
    ]
    sums = (
        f"Σ β log q/p = {signed(total)} over {length} tokens, {signed(total / length, 2)} a token"
    )
    return TokenRow(title=f"{title}: {sums}", tokens=texts, values=advantage_T)


def _margins(teacher_T: Sequence[float], student_T: Sequence[float]) -> str:
    eq_8 = sum(teacher_T) - sum(student_T)
    eq_9 = sum(teacher_T) / len(teacher_T) - sum(student_T) / len(student_T)
    return (
        f"Margin of the pair: {signed(eq_8)} (Eq 8, sums), {signed(eq_9, 2)} (Eq 9, per token). "
        "Where both responses are drawn at temperature 1 its expectation is never positive."
    )


def _prompt(
    options: argparse.Namespace, config: RunConfig, tokenizer: Any, context: int
) -> tuple[str, "torch.Tensor"]:
    """Return the prompt and its (P,) ids, as a run of the recipe would make them."""
    import torch

    from actors.encoder import RowEncoder
    from actors.rows import Layout, load_rows

    data, row, place = DataConfig(template="{prompt}"), {"prompt": options.prompt}, "--prompt"
    if options.data is not None:
        data = config.data
        rows = load_rows(options.data, Layout(prompt=data.prompt_columns), on_bad_row="error")
        if options.row >= len(rows):
            raise DataError(
                f"data file {options.data} has {len(rows)} rows and --row counts from 0: "
                f"give at most {len(rows) - 1}"
            )
        row, place = rows[options.row], rows.place(options.row)
    prompts_alone = data.model_copy(update={"columns": Columns(response=None)})
    encoder = RowEncoder(prompts_alone, tokenizer, context=context)
    (encoded,) = encoder.encode([row])
    if encoded.fault is not None:
        raise DataError(f"{place}: {encoded.fault.detail}; give a shorter one")
    return encoder.prompt_text(row), torch.from_numpy(encoded.prompt_ids_P).long()


def _model(folder: str) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from actors.model_folder import model_folder

    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(model_folder(folder)).eval()


def _draw(pair: Pair, model: Any, sampling: Sampling, seed: int) -> "torch.Tensor":
    """Return (T,) int64 a response, its end-of-sequence token included where it has one."""
    import torch

    prompt_P, end = pair.prompt_P, pair.tokenizer.eos_token_id
    decoding: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        decoding = {"do_sample": True, "temperature": sampling.temperature}
        decoding |= {"top_p": sampling.top_p, "top_k": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids_1L = model.generate(
            prompt_P[None],
            attention_mask=torch.ones_like(prompt_P)[None],
            max_length=min(
                len(prompt_P) + sampling.max_new_tokens, model.config.max_position_embeddings
            ),
            eos_token_id=end,
            pad_token_id=end,
            **decoding,
        )
    return ids_1L[0, len(prompt_P) :]


def _advantages(pair: Pair, response_T: "torch.Tensor", beta: float) -> list[float]:
    """Return (T,) beta log q/p of a response's tokens."""
    import torch

    from learner.mdp import trajectory_values

    ids_1L = torch.cat([pair.prompt_P, response_T])[None]
    response = slice(len(pair.prompt_P) - 1, -1)  # position i predicts token i + 1
    with torch.no_grad():
        logits_TV, teacher_TV = (
            model(ids_1L).logits[0, response].double() for model in (pair.student, pair.teacher)
        )
    log_p_T = teacher_TV.log_softmax(-1).gather(-1, response_T[:, None])[:, 0]
    advantage_T = trajectory_values(logits_TV, response_T, log_p_T, beta=beta).advantage_T
    if not advantage_T.isfinite().all():
        raise NonFiniteError(
            "log q/p of a token is not finite: one of the two models holds broken weights, "
            "so look at both folders"
        )
    return advantage_T.tolist()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.advantage_picture",
        description="Draw beta log q/p of every token of a teacher's and a student's response.",
    )
    parser.add_argument("--student", required=True, help="model folder in Hugging Face layout")
    parser.add_argument("--teacher", required=True, help="model folder with the same tokenizer")
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", help="the prompt itself")
    prompts.add_argument("--data", type=Path, help="data file to take the prompt from")
    parser.add_argument("--row", type=natural, default=0, help="row of --data, from 0")
    parser.add_argument(
        "--recipe", default="e2e", help="whose template and sampling hold (default: e2e)"
    )
    parser.add_argument("--beta", type=_positive, default=1.0, help="scale (default: 1)")
    parser.add_argument("--seed", type=natural, default=0, help="seed of both draws (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="SVG file to write")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError("a positive number is needed")
    return value


if __name__ == "__main__":
    sys.exit(main())
