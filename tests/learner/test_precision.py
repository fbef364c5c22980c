"""Matrices multiplied in bfloat16 while everything else stays in float32."""

from collections.abc import Callable

import torch
from torch import Tensor

from learner.precision import exactly, matmul_precision


def seen_by(function: Callable[..., Tensor], precision: str) -> list[str]:
    """Return the precision under which a function runs forward, and under which backward."""
    seen: list[str] = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values: Tensor) -> Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return values * 2

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return gradient * 2

    values = torch.ones(3, requires_grad=True)
    with matmul_precision(precision):
        function(Spy.apply, values).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [2, 2, 2]
    return seen


def test_what_is_computed_exactly_is_so_in_both_directions_and_nothing_else_is():
    assert seen_by(exactly, "medium") == ["highest", "highest"]
    assert seen_by(lambda function, *inputs: function(*inputs), "medium") == ["medium", "medium"]
    assert seen_by(exactly, "highest") == ["highest", "highest"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_inputs_without_a_gradient_get_none_and_the_others_theirs():
    one, other = torch.tensor([2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    with matmul_precision("medium"):
        exactly(torch.mul, one, other).backward()
    assert (one.grad, other.grad) == (torch.tensor([3.0]), torch.tensor([2.0]))
    with matmul_precision("medium"), torch.no_grad():
        assert exactly(torch.mul, one, other) == 6
