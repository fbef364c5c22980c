"""How a response is drawn."""

from pydantic import Field

from configs.base import Section


class Sampling(Section):
    """Decoding parameters of one generation."""

    temperature: float = Field(default=1.0, ge=0.0)
    """Softmax temperature; 0 is greedy. Changes how y is drawn, never its log-probability."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus mass; 1 keeps every token."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest response in tokens, the end-of-sequence token included."""
