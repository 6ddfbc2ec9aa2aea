"""bfloat16 copies of weights that stand in for them in a step, beside float32 masters.

Autocast casts every weight that a product reads in every step, and every gradient back: tensors
that are made, filled once and thrown away, up to a third of a small step. The same casts into
copies that stay cost a fraction. Values and gradients are the same, bit for bit.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Casts(TorchDispatchMode):
    """Notes which weights of a model are cast to bfloat16 while it is active."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _, *others = model.parameters()  # the first tells a model's dtype, see Model.like
        self._weights = {p.data_ptr(): p for p in others}
        self._found: dict[int, nn.Parameter] = {}

    @property
    def found(self) -> list[nn.Parameter]:
        """Those weights."""
        return [*self._found.values()]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        casts = func is torch.ops.aten._to_copy.default  # noqa: SLF001 - an operator's name
        if casts and kwargs.get("dtype") is torch.bfloat16:
            weight = self._weights.get(args[0].data_ptr())
            if weight is not None and weight.shape == args[0].shape:
                self._found[args[0].data_ptr()] = weight
        return func(*args, **kwargs)


class Halves:
    """Copies of weights in bfloat16, and room for their gradients in float32.

    Args:
        model: The model; in its modules, copies take the weights' places.
        weights: Weights that autocast casts.
    """

    def __init__(self, model: nn.Module, weights: Sequence[nn.Parameter]) -> None:
        self.weights = list(weights)
        number = {id(weight): n for n, weight in enumerate(self.weights)}
        self._places = [
            (module, name, number[id(weight)])
            for module in model.modules()
            for name, weight in module._parameters.items()  # noqa: SLF001 - named_ ones are no places
            if id(weight) in number
        ]
        self._number = number
        self.copies = [_copy(weight) for weight in self.weights]
        self.gradients = [torch.empty_like(weight) for weight in self.weights]

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Within, the model computes with the copies; then the weights have their gradients."""
        with torch.no_grad():
            self._keep_layout()
            torch._foreach_copy_([*self.copies], [*self.weights])
        self._put(self.copies)
        try:
            yield
            self._hand_over()
        finally:
            self._put(self.weights)
            for copy in self.copies:
                copy.grad = None

    def of(self, weights: Iterable[nn.Parameter]) -> list[Tensor]:
        """Returns what stands in for weights: themselves where nothing does."""
        return [
            self.copies[self._number[id(weight)]] if id(weight) in self._number else weight
            for weight in weights
        ]

    def _hand_over(self) -> None:
        """Gives weights the gradients of their copies; those that had none get none."""
        each = zip(self.weights, self.gradients, self.copies, strict=True)
        read = [(w, g, c.grad) for w, g, c in each if c.grad is not None]
        if read:
            weights, gradients, halved = zip(*read, strict=True)
            torch._foreach_copy_(gradients, halved)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient

    def _keep_layout(self) -> None:
        """Makes copies anew of weights that were laid out otherwise in memory since."""
        for n, weight in enumerate(self.weights):
            if self.copies[n].stride() != weight.stride():
                self.copies[n] = _copy(weight)
                self.gradients[n] = torch.empty_like(weight)

    def _put(self, weights: Sequence[nn.Parameter]) -> None:
        for module, name, number in self._places:
            module._parameters[name] = weights[number]  # noqa: SLF001 - setattr checks for long


def _copy(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=weight.requires_grad)
