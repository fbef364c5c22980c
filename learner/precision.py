"""In what number format torch multiplies float32 matrices, and where that does not pay."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

EVEN_ROWS = 64
"""Matrices that are multiplied in bfloat16 have a multiple of so many rows: a CPU's library
compiles code for every shape that it meets."""


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Multiply by torch's ``highest``, ``high`` or ``medium`` precision for a while."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def rows_to_add(rows: int, dtype: torch.dtype) -> int:
    """Return how many rows of padding a matrix gets, so that shapes are few; see ``EVEN_ROWS``."""
    exact = torch.get_float32_matmul_precision() == "highest"
    if dtype == torch.float64 or (exact and dtype == torch.float32):
        return 0
    return -rows % EVEN_ROWS


def exactly(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return ``function(*inputs)``, computed forward and backward in full precision.

    On a CPU torch's attention multiplies many small matrices, each of which would be converted
    first: by three to five times as slow as in float32. Elsewhere this is a plain call.
    """
    if inputs[0].device.type != "cpu" or torch.get_float32_matmul_precision() == "highest":
        return function(*inputs)
    return _Exactly.apply(function, *inputs)  # pyright: ignore[reportReturnType]


class _Exactly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        inner = tuple(each.detach().requires_grad_(each.requires_grad) for each in inputs)
        with matmul_precision("highest"), torch.enable_grad():
            ctx.inner, ctx.answer = inner, function(*inner)
        return ctx.answer.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        with matmul_precision("highest"):
            return (None, *torch.autograd.grad(ctx.answer, ctx.inner, gradients))
