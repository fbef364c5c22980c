"""The picture of token advantages: what is drawn, and the command on real small models."""

import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from actors.tokenizer import train_tokenizer
from configs.models import MakeModel
from learner.make_model import make_model
from orchestration.advantage_picture import main
from orchestration.token_picture import (
    Legend,
    TokenRow,
    colour_bound,
    colour_of,
    signed,
    token_picture,
)

MINUS = "\N{MINUS SIGN}"
SVG = "{http://www.w3.org/2000/svg}"
LEGEND = Legend(title="Advantage", negative="less", positive="more")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def picture(*tokens: str, values: tuple[float, ...]) -> str:
    row = TokenRow(title="y", tokens=tokens, values=values)
    return token_picture([row], LEGEND, context="a prompt", notes=["a note"])


def model(folder: Path, seed: int) -> str:
    tokenizer = train_tokenizer(["say it word said"], 300, folder)
    sizes = MakeModel(hidden_size=32, layers=1, heads=1, context=64, initializer_range=0.5)
    make_model(sizes, vocab_size=len(tokenizer), eos_token_id=0, seed=seed, folder=folder)
    return str(folder)


def test_every_token_stands_with_its_number_between_heading_and_notes() -> None:
    svg = picture(" a", "<b>", "\n", values=(1.0, -2.5, 0.01))
    assert texts(svg) == [
        *["Advantage", f"{MINUS}5", "0", "+5", "less", "more", "a prompt", "y"],
        *["a", "+1.0", "<b>", f"{MINUS}2.5", "↵", "0.0", "a note"],
    ]  # fmt: skip


def test_the_legend_says_where_a_value_lies_beyond_its_colours() -> None:
    drawn = texts(picture(*["a"] * 10, values=(*[0.3] * 9, 80.0)))
    assert drawn[1:4] == [f"≤ {MINUS}0.50", "0", "≥ +0.50"]


def test_boxes_do_not_overlap_and_stay_inside() -> None:
    words = tuple(f" {'word' * (1 + i % 5)}" for i in range(60))
    svg = picture(*words, values=(0.5,) * 60)
    boxes = [
        [float(element.get(name, "nan")) for name in ("x", "y", "width")]
        for element in ET.fromstring(svg).iter(f"{SVG}rect")
        if element.get("height") == "34"
    ]
    assert len(boxes) == 60 and len({y for _, y, _ in boxes}) > 5
    for (x, y, width), (next_x, next_y, _) in pairwise(boxes):
        assert x + width <= 936.05
        assert next_x >= x + width if next_y == y else next_y == y + 42


def test_colours_run_from_red_over_near_white_to_blue() -> None:
    assert colour_of(0.0, 2.0) == (247, 247, 247)
    assert colour_of(-1.0, 2.0) == (212, 136, 145)
    assert colour_of(-9.0, 2.0) == (178, 24, 43)
    assert colour_of(2.0, 2.0) == (33, 102, 172)


def test_the_colour_bound_is_a_round_number_that_one_outlier_does_not_move() -> None:
    assert colour_bound([0.3] * 9 + [80.0]) == 0.5
    assert colour_bound([-3.0, 1.0]) == 5.0
    assert colour_bound([0.0]) == 1e-6


def test_numbers_carry_a_sign_unless_they_round_to_zero() -> None:
    assert [signed(v) for v in (0.26, -1.25, -0.04, 0.0)] == ["+0.3", f"{MINUS}1.2", "0.0", "0.0"]


def test_the_command_draws_a_row_of_a_data_file(tmp_path: Path) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "pictures" / "pair.svg"
    rows = [{"instruction": "Say it.", "context": f"word {i}"} for i in range(3)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    student, teacher = (model(tmp_path / name, seed) for name, seed in (("s", 0), ("t", 1)))
    arguments = ["--student", student, "--teacher", teacher, "--out", str(out)]
    assert main([*arguments, "--data", str(data), "--row", "2"]) == 0
    drawn = texts(out.read_text())
    assert "word 2" in drawn and sum("Σ β log q/p" in text for text in drawn) == 2
    first = out.read_bytes()
    main([*arguments, "--data", str(data), "--row", "2"])
    assert out.read_bytes() == first


def test_a_model_beside_itself_has_no_advantage_anywhere(tmp_path: Path) -> None:
    out, folder = tmp_path / "pair.svg", model(tmp_path / "m", 0)
    assert (
        main(["--student", folder, "--teacher", folder, "--prompt", "it", "--out", str(out)]) == 0
    )
    (summary,) = (text for text in texts(out.read_text()) if text.startswith("Margin"))
    assert summary.startswith("Margin of the pair: 0.0 (Eq 8, sums), 0.00 (Eq 9")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--prompt", "word " * 80], 4, r"--prompt: the prompt has \d+ tokens"),
        (["--data", "none.jsonl"], 4, "does not exist"),
        (["--prompt", "it", "--student", "nowhere"], 3, "nowhere"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = model(tmp_path / "m", 0)
    given = ["--student", folder, "--teacher", folder, "--out", str(tmp_path / "p.svg"), *arguments]
    assert main(given) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line) and line.startswith("error: ")
