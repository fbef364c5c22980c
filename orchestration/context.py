"""How much a model can read at once."""

from transformers import AutoConfig

from configs.errors import DependencyError
from configs.models import ModelSource


def context_of(source: ModelSource) -> int:
    """Return the context of a model that is loaded, in tokens, from its configuration.

    Raises ``DependencyError`` when there is no such model.
    """
    assert source.model is not None
    try:
        config = AutoConfig.from_pretrained(
            source.model, revision=source.revision, trust_remote_code=source.trust_remote_code
        ).get_text_config()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DependencyError(
            f"model {source.model} has no readable configuration ({reason}); "
            "give a folder in Hugging Face layout, or a hub name"
        ) from None
    length = getattr(config, "max_position_embeddings", None)
    if length is None:
        raise DependencyError(
            f"model {source.model} does not say how long a text it takes "
            "(max_position_embeddings in config.json)"
        )
    return int(length)
