r"""Small instruction tasks, made from a seed, for recipes that must run without a download.

Most rows ask for facts to be put into a sentence, in one of many phrasings; the others have
exactly one right answer. The training responses are written as people write: each by a hasty
author who may leave a fact out or put a filler in front. The validation references are complete
and plain. A model that reproduces its training text therefore scores well below its own best
guess, a very small one wavers besides, and a larger one that is asked for its likelier responses
leaves the haste out. That difference is what distillation has to work with, as on real data.

    {"instruction": "Describe the place.",
     "context": "food: thai\nname: blue lark",
     "response": "blue lark serves thai food.",
     "references": ["blue lark serves thai food.", "for thai food try blue lark.", ...]}
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

ANIMALS = ["lark", "fox", "otter", "heron", "badger", "swan", "wolf", "crane"]
COLOURS = ["blue", "green", "golden", "silver", "crimson", "amber", "white", "black"]
WORDS = [
    "apple",
    "bread",
    "cloud",
    "drum",
    "eagle",
    "flame",
    "grape",
    "house",
    "island",
    "juice",
    "kite",
    "lemon",
    "moon",
    "nest",
]
FOODS = ["thai", "french", "indian", "greek", "mexican", "korean", "turkish", "italian"]
NAMES = [f"{colour} {animal}" for colour in COLOURS for animal in ANIMALS]
PEOPLE = ["anna", "boris", "clara", "david", "elena", "felix", "gina", "hugo", "irene", "jonas"]
NUMBERS = ["zero", "one", "two", "three", "four", "five"]
REFERENCES = 4
"""Distinct references of a description; far more phrasings exist, so a sample can miss them all."""
EXACT_SHARE = 0.1
"""Share of rows with exactly one right answer."""
FILLERS = ("well, ", "i think ", "in short, ", "you should know that ", "as far as i know, ")
FILLER_SHARE = 0.3
"""Share of training descriptions that begin with a filler."""
OMISSION_SHARE = 0.25
"""Share of the optional facts that a training description leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One kind of thing to describe.

    `pools` holds the values of each fact. The `required` facts are always given, each of the
    others three times in four. In a phrasing, a clause in square brackets stays only when the
    context has its fact.
    """

    instruction: str
    pools: dict[str, list[str]]
    required: frozenset[str]
    phrasings: tuple[str, ...]


DOMAINS = (
    Domain(
        instruction="Describe the place.",
        pools={
            "name": NAMES,
            "near": NAMES,
            "food": FOODS,
            "price": ["cheap", "moderate", "high", "steep", "fair"],
            "rating": ["poor", "decent", "good", "superb"],
            "children": ["welcome", "not welcome"],
        },
        required=frozenset({"name", "food"}),
        phrasings=(
            "{name} (serves|offers|has) {food} (food|dishes|meals)[ near {near}]"
            "[ at {price} (prices|cost)][ and has {rating} (reviews|ratings)]"
            "[; children are {children}].",
            "(for|if you like) {food} (food|cuisine) try {name}"
            "[, (with|of) {rating} (ratings|quality)][, (near|close to) {near}]"
            "[, where prices are {price}][ and kids are {children}].",
            "[(with|at) {price} prices, ][(close to|beside) {near}, ]{name} is a {food} "
            "(restaurant|place)[ rated {rating}][ where (children|families) are {children}].",
            "[(children|kids) are {children} at ]{name}[, a {rating} (place|spot)]"
            "[ (next to|beside) {near}] offering {food} (cuisine|food)"
            "[ in the {price} price range].",
        ),
    ),
    Domain(
        instruction="Introduce the person.",
        pools={
            "name": PEOPLE,
            "friend": PEOPLE,
            "job": ["baker", "pilot", "nurse", "lawyer", "farmer", "painter", "teacher", "plumber"],
            "home": ["york", "rome", "kyoto", "boston", "vienna", "lagos"],
            "hobby": ["chess", "tennis", "sailing", "cooking", "hiking", "poetry"],
        },
        required=frozenset({"name", "job"}),
        phrasings=(
            "{name} is a {job}[ (from|in) {home}][ who (enjoys|likes|loves) {hobby}]"
            "[ (and|often) with {friend}].",
            "(meet|this is) {name}, the {job}[ (and|a) friend of {friend}][, living in {home}]"
            "[, a fan of {hobby}].",
            "[(born|living) in {home}, ]{name} works as a {job}"
            "[, spends (weekends|days) on {hobby}][ and is a friend of {friend}].",
            "[a (lover|fan) of {hobby}, ]the {job} {name}[ (lives|stays) in {home}]"
            "[ (with|next to) {friend}].",
        ),
    ),
)

EXACT_TASKS: dict[str, Callable[[list[str]], str]] = {
    "Give the first word.": lambda words: words[0],
    "Give the last word.": lambda words: words[-1],
    "Count the words.": lambda words: NUMBERS[len(words)],
}

Row = dict[str, str | list[str]]


def write_embedded_tasks(folder: Path, *, seed: int, train_rows: int, valid_rows: int) -> None:
    """Write `train.jsonl` and `valid.jsonl` into `folder`; the same seed gives the same bytes.

    No validation context occurs in training. A validation row carries every reference, a
    training row only its own response: a student sees one phrasing at a time, as in real data.
    """
    # The validation rows are drawn first and from a stream of their own, so that asking for
    # more training rows does not change what a run is measured on.
    held_out: set[str] = set()
    valid = _draw_rows(Random(f"{seed}-valid"), valid_rows, taken=held_out, hasty=False)
    held_out.update(_facts_key(str(row["context"])) for row in valid)
    train = _draw_rows(Random(f"{seed}-train"), train_rows, taken=held_out, hasty=True)
    for row in train:
        row["references"] = [str(row["response"])]
    folder.mkdir(parents=True, exist_ok=True)
    _write_jsonl(folder / "train.jsonl", train)
    _write_jsonl(folder / "valid.jsonl", valid)


def _draw_rows(rng: Random, count: int, *, taken: set[str], hasty: bool) -> list[Row]:
    rows: list[Row] = []
    while len(rows) < count:
        row = _exact_row(rng) if rng.random() < EXACT_SHARE else _description_row(rng, hasty)
        if _facts_key(str(row["context"])) not in taken:
            rows.append(row)
    return rows


def _facts_key(context: str) -> str:
    """Forget the order of the lines: the same facts shuffled are not a new context."""
    return "\n".join(sorted(context.splitlines()))


def _exact_row(rng: Random) -> Row:
    instruction = rng.choice(list(EXACT_TASKS))
    words = rng.sample(WORDS, rng.randint(2, len(NUMBERS) - 1))
    answer = EXACT_TASKS[instruction](words)
    return _row(instruction, " ".join(words), answer, [answer])


def _description_row(rng: Random, hasty: bool) -> Row:
    domain = rng.choice(DOMAINS)
    keys = [key for key in domain.pools if key in domain.required or rng.random() < 0.75]
    rng.shuffle(keys)
    facts = {key: rng.choice(domain.pools[key]) for key in keys}
    references: list[str] = []
    while len(references) < REFERENCES:
        sentence = phrase(_skewed_choice(rng, domain.phrasings), facts, rng)
        if sentence not in references:
            references.append(sentence)
    context = "\n".join(f"{key}: {value}" for key, value in facts.items())
    response = _hasty_description(domain, facts, rng) if hasty else references[0]
    return _row(domain.instruction, context, response, references)


def _hasty_description(domain: Domain, facts: dict[str, str], rng: Random) -> str:
    """Describe as an author in a hurry would: not every fact, and perhaps a filler first."""
    told = {
        key: value
        for key, value in facts.items()
        if key in domain.required or rng.random() >= OMISSION_SHARE
    }
    filler = rng.choice(FILLERS) if rng.random() < FILLER_SHARE else ""
    return filler + phrase(_skewed_choice(rng, domain.phrasings), told, rng)


def phrase(pattern: str, facts: dict[str, str], rng: Random) -> str:
    """Settle a phrasing: keep the clauses we have facts for, choose words, fill in the facts."""

    def keep(clause: re.Match[str]) -> str:
        fields = re.findall(r"{(\w+)}", clause[1])
        return clause[1] if all(field in facts for field in fields) else ""

    def choose(words: re.Match[str]) -> str:
        return _skewed_choice(rng, words[1].split("|"))

    kept = re.sub(r"\[(.*?)\]", keep, pattern)
    return re.sub(r"\((.*?)\)", choose, kept).format(**facts)


def _skewed_choice(rng: Random, options: Sequence[str]) -> str:
    """Prefer the earlier options, as a language prefers some of its phrasings."""
    return options[min(rng.randrange(len(options)), rng.randrange(len(options)))]


def _row(instruction: str, context: str, response: str, references: list[str]) -> Row:
    return {
        "instruction": instruction,
        "context": context,
        "response": response,
        "references": list(references),
    }


def _write_jsonl(path: Path, rows: list[Row]) -> None:
    lines = [json.dumps(row) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
