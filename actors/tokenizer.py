"""Tokenizers: load one, train one, and tell whether two are the same.

transformers is imported inside the functions: it brings torch, which takes seconds, and the
driver must have checked its config before that.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.model_folder import UNREADABLE, require_model
from configs.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
"""The one special token of a trained tokenizer: beginning, end and padding."""

_PROBE = "Ünïcode, don't  split\tthis:\n\n 12345 6.7 x=1; 東京 <|endoftext|> </s>\r\n end "
"""Text on which tokenizers of one vocabulary that split differently give different ids."""


def load_tokenizer(
    model: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model folder or hub name; DependencyError where there is none."""
    from transformers import AutoTokenizer

    require_model(model)
    folder = Path(model)
    if folder.is_dir() and not _has_tokenizer(folder):
        raise DependencyError(
            f"model folder {folder.absolute()} has no tokenizer (tokenizer.json or its like): "
            "copy in the files of the tokenizer it was trained with"
        )
    try:
        return AutoTokenizer.from_pretrained(
            model, revision=revision, trust_remote_code=trust_remote_code
        )
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:300]
        if folder.is_dir():
            raise DependencyError(
                f"the tokenizer of model folder {folder.absolute()} cannot be loaded ({reason}); "
                "copy config.json and the tokenizer's files from the model again"
            ) from error
        raise DependencyError(
            f"no tokenizer could be loaded from {model!r}: give a folder in Hugging Face layout or "
            f"a hub name that can be reached ({reason})"
        ) from error


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, folder: Path
) -> "PreTrainedTokenizerBase":
    """Train a byte-level BPE, save it to ``folder`` and return it as loaded from there.

    The same texts give the same files. Few texts may give fewer than ``vocab_size`` tokens.
    ``<|endoftext|>`` has id 0 and is beginning, end and padding in one.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    return load_tokenizer(str(folder))


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a hex digest of everything that decides which ids a text gets.

    That is vocabulary, merges, added tokens, how text is normalised and split, and the
    beginning and end of a sequence. The padding token, templates for chats and the folder are
    not part of it.
    """
    parts: dict[str, Any] = {
        "vocabulary": tokenizer.get_vocab(),
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id],
        "probe": tokenizer(_PROBE, verbose=False)["input_ids"],
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        whole = json.loads(backend.to_str())
        parts |= {name: whole.get(name) for name in ("model", "normalizer", "pre_tokenizer")}
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def require_same_tokenizer(
    teacher: "PreTrainedTokenizerBase", student: "PreTrainedTokenizerBase"
) -> None:
    """Raise ConfigError, naming both, unless the two give every text the same ids."""
    if tokenizer_fingerprint(teacher) == tokenizer_fingerprint(student):
        return
    sizes = len(teacher), len(student)
    detail = f"{sizes[0]} and {sizes[1]} tokens" if sizes[0] != sizes[1] else "of equal size"
    raise ConfigError(
        f"teacher.model ({teacher.name_or_path}) and student.model ({student.name_or_path}) have "
        f"different tokenizers ({detail}): token ids travel between them, so take two models of "
        "one family"
    )


def _has_tokenizer(folder: Path) -> bool:
    # A folder with a config alone gives an empty tokenizer, without an error.
    patterns = ("tokenizer.*", "*vocab*", "*.model", "*.tiktoken", "tekken.json", "spiece*")
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)
