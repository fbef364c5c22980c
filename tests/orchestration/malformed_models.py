"""Damaged model folders, each with the sentence that answers it.

``…`` stands for words of other libraries; ``{model}`` is the folder, ``{sound}`` a sound one.
"""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from actors.tokenizer import train_tokenizer
from configs.errors import ConfigError, DependencyError, DpkdError
from configs.models import MakeModel
from learner.make_model import make_model

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Damage(NamedTuple):
    what: str
    do: Callable[[Path], Any]
    said: str
    kind: type[DpkdError] = DependencyError


@cache
def sound_model() -> Path:
    """A GPT-2 of one layer with a context of 64, whole, with its tokenizer."""
    folder = Path(mkdtemp(prefix="dpkd-model-"))
    tokenizer = train_tokenizer(["say it word said"], 300, folder)
    sizes = MakeModel(hidden_size=32, layers=1, heads=1, context=64)
    make_model(sizes, vocab_size=len(tokenizer), eos_token_id=0, seed=0, folder=folder)
    return folder


def write(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda model: (model / name).write_bytes(content)


def delete(pattern: str) -> Callable[[Path], Any]:
    return lambda model: [path.unlink() for path in model.glob(pattern)]


def cut(name: str, size: int) -> Callable[[Path], Any]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:size])


def set_key(name: str, key: str, value: Any) -> Callable[[Path], None]:
    """Set a key of a JSON file; None deletes it."""

    def change(model: Path) -> None:
        keys = json.loads((model / name).read_text()) | {key: value}
        (model / name).write_text(json.dumps({k: v for k, v in keys.items() if v is not None}))

    return change


def lose_a_shard(model: Path) -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    (model / WEIGHTS).rename(model / first)
    index = {"weight_map": {"transformer.wte.weight": first, "transformer.wpe.weight": second}}
    (model / INDEX).write_text(json.dumps(index))


def put_a_file_there(model: Path) -> None:
    shutil.rmtree(model)
    model.write_text("no folder")


def set_tensor(name: str, tensor: torch.Tensor | None) -> Callable[[Path], None]:
    """Replace a tensor of the weights; None takes it out."""

    def change(model: Path) -> None:
        weights: dict[str, Any] = load_file(model / WEIGHTS) | {name: tensor}
        kept = {each: value for each, value in weights.items() if value is not None}
        save_file(kept, model / WEIGHTS, metadata={"format": "pt"})

    return change


COMPLETE_STUDENT = "set student.model to a complete model in Hugging Face layout"
COMPLETE = "give a complete model in Hugging Face layout"
FOLDER = "give a folder in Hugging Face layout, or a hub"
AGAIN = "copy it from the model again"
CUT = "weight file {model}/model.safetensors is damaged or cut off (…); "
TOKENIZER = (
    "the tokenizer of model folder {model} cannot be loaded (…); copy config.json and the "
    "tokenizer's files from the model again"
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n"

FOLDERS = [
    Damage("no folder", shutil.rmtree,
           f"model folder {{model}} does not exist: {FOLDER} model's name"),
    Damage("a file in its place", put_a_file_there,
           f"model folder {{model}} is a file: {FOLDER} model's name"),
    Damage("an empty folder", delete("*"),
           f"model folder {{model}} holds no config.json; {COMPLETE}"),
    Damage("no config.json", delete("config.json"),
           f"model folder {{model}} holds no config.json; {COMPLETE}"),
    Damage("a config.json that is cut off", cut("config.json", 20),
           f"model folder {{model}}: config.json cannot be read (…); {AGAIN}"),
    Damage("a config.json that is not UTF-8", write("config.json", b'{"a": "\xff"}'),
           f"model folder {{model}}: config.json cannot be read (…); {AGAIN}"),
    Damage("a config.json that is a list", write("config.json", b"[]"),
           "model folder {model}: config.json holds a list where a JSON object is expected; "
           + AGAIN),
    Damage("a config.json of no architecture", set_key("config.json", "model_type", None),
           f"student {{model}}: config.json cannot be used (…); {COMPLETE_STUDENT}"),
    Damage("a config.json of an unknown architecture", set_key("config.json", "model_type", "foo"),
           f"student {{model}}: config.json cannot be used (…`foo`…); {COMPLETE_STUDENT}"),
    Damage("a config.json of fewer tokens than the tokenizer has",
           set_key("config.json", "vocab_size", 5),
           "the student has a vocabulary of 5, fewer than the … tokens of the run's tokenizer; set "
           "student.model to a model of the tokenizer's family", ConfigError),
    Damage("a config.json with a word for a number", set_key("config.json", "n_positions", "long"),
           TOKENIZER),
    Damage("a generation_config.json that is cut off", cut("generation_config.json", 20),
           f"model folder {{model}}: generation_config.json cannot be read (…); {AGAIN}"),
    Damage("no weights", delete(WEIGHTS),
           f"model folder {{model}} holds no weights (*.safetensors or *.bin); {COMPLETE}"),
    Damage("weights that are cut off", cut(WEIGHTS, -100), f"{CUT}copy it again"),
    Damage("weights of which the header is cut off", cut(WEIGHTS, 20), f"{CUT}copy it again"),
    Damage("weights of no bytes", write(WEIGHTS, b""), f"{CUT}copy it again"),
    Damage("a pointer of Git LFS for weights", write(WEIGHTS, POINTER),
           f"{CUT}run `git lfs pull` where it was cloned"),
    Damage("one of two weight files", lose_a_shard,
           f"model folder {{model}} lacks model-00002-of-00002.safetensors, one of 2 weight files "
           f"that {INDEX} names; copy the whole model"),
    Damage("no tokenizer", delete("tokenizer*"),
           "model folder {model} has no tokenizer (tokenizer.json or its like): copy in the files "
           "of the tokenizer it was trained with"),
    Damage("a tokenizer.json that is cut off", cut("tokenizer.json", 300), TOKENIZER),
    Damage("a tokenizer.json that is a list", write("tokenizer.json", b"[]"), TOKENIZER),
    Damage("a tokenizer_config.json that is a list", write("tokenizer_config.json", b"[]"),
           TOKENIZER),
    Damage("the tokenizer of another vocabulary",
           lambda model: train_tokenizer(["other texts altogether, other merges"], 300, model),
           "teacher.model ({sound}) and student.model ({model}) have different tokenizers (268 and "
           "… tokens): token ids travel between them, so take two models of one family",
           ConfigError),
]  # fmt: skip

SET = "set teacher.model to a complete model in Hugging Face layout"
PROJECTION = "transformer.h.0.attn.c_proj.weight"

# Found when the weights are read: after the configuration, tokenizer and data were.
TENSORS = [
    Damage("a tensor that is missing", set_tensor(PROJECTION, None),
           f"model {{model}} lacks weights ({PROJECTION}, …); {SET}"),
    Damage("a tensor of another shape", set_tensor(PROJECTION, torch.zeros(2, 3)),
           f"model {{model}} holds {PROJECTION} with shape (2, 3), and its config.json makes it "
           f"(32, 32); {SET}"),
    Damage("a vocabulary that is not the weights'", set_key("config.json", "vocab_size", 200),
           "model {model} holds transformer.wte.weight with shape (268, 32), and its config.json "
           f"makes it (200, 32); {SET}"),
    Damage("heads that do not divide the width", set_key("config.json", "n_head", 5),
           f"model {{model}} cannot be loaded: …; {SET}"),
    Damage("pickled weights that are none",
           lambda model: (model / WEIGHTS).rename(model / "pytorch_model.bin"),
           f"model {{model}} cannot be loaded: …; {SET}"),
]  # fmt: skip
