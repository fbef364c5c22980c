"""How much a model can read at once."""

from transformers import AutoConfig

from configs.errors import DependencyError
from orchestration.assembly import Models


def context_of(model: str) -> int:
    """Return a model's context in tokens, from its configuration.

    Raises ``DependencyError`` when there is no such model.
    """
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DependencyError(
            f"model {model} has no readable configuration ({reason}); "
            "give a folder in Hugging Face layout, or a hub name"
        ) from None
    return int(config.get_text_config().max_position_embeddings)


def common_context(models: Models) -> int:
    """Return the context that student and teacher share."""
    return min(context_of(model) for model in (models.student, models.teacher) if model)
