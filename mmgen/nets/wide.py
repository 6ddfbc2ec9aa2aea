"""The layers of all copies of a net, each with the weights of all copies in one tensor.

Activations are ``(B, C, *event)``: row first, then copy. The same weights serve one copy after the
other as well, each ``(B, *event)``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.nets.shared_norm import Counting, normalised

CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
TRANSPOSED: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def unflatten(x: Tensor, dim: int, *sizes: int) -> Tensor:
    """Splits a dimension into several."""
    unflattened: Tensor = x.unflatten(dim, sizes)
    return unflattened


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stacks tensors; on the ``meta`` device without its kernel: see :mod:`mmgen.nets.dry_run`."""
    first = tensors[0]
    if first.is_meta:
        return first.new_empty(len(tensors), *first.shape)
    return torch.stack([*tensors])


class Wide(nn.Module):
    """One layer of all copies.

    ``forward(x, shared, chosen)``: ``x`` is ``(B, *event)`` if shared, else ``(B, C, *event)``;
    the output is ``(B, C, *event)``. ``chosen`` numbers the copies to run.
    """

    reads_shared_input = False

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__()

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        raise NotImplementedError

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """Runs one copy ``(B, *event) -> (B, *event)`` with its own weights and buffers."""
        raise NotImplementedError

    def alone(self, copies: int) -> list[Callable[[Tensor], Tensor]]:
        """Returns :meth:`one` of each copy, on views of the weights of all."""
        # All views at once: the gradient of a stack is then written once.
        weights = {name: p.unbind(0) for name, p in self.named_parameters(recurse=False)}
        buffers = dict(self.named_buffers(recurse=False))
        return [
            partial(
                self.one,
                **{name: views[copy] for name, views in weights.items()},
                **{name: buffer[copy] for name, buffer in buffers.items()},
            )
            for copy in range(copies)
        ]

    def _stack(self, same: Sequence[nn.Module], *names: str) -> None:
        for name in names:
            tensors = [getattr(layer, name) for layer in same]
            if tensors[0] is None:
                self.register_parameter(name, None)
            elif isinstance(tensors[0], nn.Parameter):
                setattr(self, name, nn.Parameter(stack([t.detach() for t in tensors])))
            else:
                self.register_buffer(name, stack(tensors))

    def _pick(self, name: str, chosen: Tensor | slice | None) -> Any:
        tensor = getattr(self, name)
        return tensor if tensor is None or chosen is None else tensor[chosen]


class WideLinear(Wide):
    """Linear layers: one batched product, on a shared input as well as on one a copy."""

    reads_shared_input = True

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        # (C, in, out), as the product reads it: its gradient then needs no transposition.
        self.weight = nn.Parameter(stack([layer.weight.detach().mT for layer in same]))
        self._stack(same, "bias")  # (C, out)

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        if shared:
            event = x.shape[1:-1]
            rows = x.flatten(0, -2).expand(weight.shape[0], -1, -1)
        else:
            event = x.shape[2:-1]
            rows = x.movedim(1, 0).flatten(1, -2)  # (C, rows, in)
        if bias is None:
            product = torch.bmm(rows, weight)
        else:
            product = torch.baddbmm(bias.unsqueeze(1), rows, weight)
        return unflatten(product, 1, x.shape[0], *event).movedim(0, 1)

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """See :meth:`Wide.one`."""
        return F.linear(x, own["weight"].mT, own.get("bias"))


class WideConvolution(Wide):
    """Convolutions: one wide convolution on a shared input, else one grouped convolution."""

    reads_shared_input = True

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias")  # (C, out, in, *kernel), (C, out)
        first = same[0]
        self.convolve = CONVOLUTIONS[type(first)]
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.groups = first.groups
        self.reads_shared_input = self.groups == 1  # wide channels would leave their groups

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        copies, out = weight.shape[:2]
        x = self._convolve(
            x if shared else x.flatten(1, 2),
            weight.flatten(0, 1),
            None if bias is None else bias.flatten(),
            1 if shared else copies * self.groups,
        )
        return unflatten(x, 1, copies, out)

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """See :meth:`Wide.one`."""
        return self._convolve(x, own["weight"], own.get("bias"), self.groups)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return self.convolve(x, weight, bias, self.stride, self.padding, self.dilation, groups)


class WideTransposedConvolution(Wide):
    """Transposed convolutions: one wide one on a shared input, else one grouped one."""

    reads_shared_input = True

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias")  # (C, in, out / groups, *kernel), (C, out)
        first = same[0]
        self.convolve = TRANSPOSED[type(first)]
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.output_padding, self.groups = first.output_padding, first.groups
        self.reads_shared_input = self.groups == 1  # wide channels would leave their groups

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        copies = weight.shape[0]
        x = self._convolve(
            x if shared else x.flatten(1, 2),
            weight.movedim(0, 1).flatten(1, 2) if shared else weight.flatten(0, 1),
            None if bias is None else bias.flatten(),
            1 if shared else copies * self.groups,
        )
        return unflatten(x, 1, copies, weight.shape[2] * self.groups)

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """See :meth:`Wide.one`."""
        return self._convolve(x, own["weight"], own.get("bias"), self.groups)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return self.convolve(
            x,
            weight,
            bias,
            self.stride,
            self.padding,
            self.output_padding,
            groups,
            self.dilation,
        )


class WideBatchNorm(Wide):
    """Batch normalisation: the copies' channels side by side.

    Attributes:
        counting: Where several processes train together: whether this one's rows count.
    """

    counting: Counting | None = None

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias", "running_mean", "running_var")
        first = same[0]
        self.momentum, self.eps = first.momentum, first.eps

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (self._pick(n, chosen).flatten() for n in names)
        training = self.training and chosen is None  # some copies alone: at generation only
        wide = self._normalised(x.flatten(1, 2), mean, variance, weight, bias, training)
        return unflatten(wide, 1, *x.shape[1:3])

    def _normalised(
        self, x: Tensor, mean: Any, variance: Any, weight: Any, bias: Any, training: bool
    ) -> Tensor:
        own, how = (mean, variance, weight, bias), (self.momentum, self.eps)
        if training and self.counting is not None:
            return normalised(x, *own, *how, self.counting)
        return F.batch_norm(x, *own, training, *how)

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """See :meth:`Wide.one`; in training the running statistics of this copy move."""
        mean, variance, weight, bias = (
            own[n] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return self._normalised(x, mean, variance, weight, bias, self.training)


class WideGroupNorm(Wide):
    """Group normalisation: the copies' groups side by side."""

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias")
        first = same[0]
        self.groups, self.eps = first.num_groups, first.eps

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        groups = weight.shape[0] * self.groups
        wide = F.group_norm(x.flatten(1, 2), groups, weight.flatten(), bias.flatten(), self.eps)
        return unflatten(wide, 1, *x.shape[1:3])

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """See :meth:`Wide.one`."""
        return F.group_norm(x, self.groups, own["weight"], own["bias"], self.eps)


class WideLayerNorm(Wide):
    """Layer normalisation: one normalisation, then each copy's own scale and shift."""

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias")
        first = same[0]
        self.shape, self.eps = first.normalized_shape, first.eps

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        between = (1,) * (x.dim() - 2 - len(self.shape))  # dimensions that are not normalised
        weight = weight.reshape(-1, *between, *self.shape)
        bias = bias.reshape(-1, *between, *self.shape)
        return torch.addcmul(bias, F.layer_norm(x, self.shape, eps=self.eps), weight)

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """See :meth:`Wide.one`."""
        return F.layer_norm(x, self.shape, own["weight"], own["bias"], self.eps)


class WideDropout(Wide):
    """Dropout: each copy its own mask."""

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self.p = same[0].p

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | slice | None) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def one(self, x: Tensor, **own: Tensor) -> Tensor:
        """See :meth:`Wide.one`."""
        return F.dropout(x, self.p, self.training)


def widen(same: Sequence[nn.Module]) -> nn.Module:
    """Makes one layer of all copies; a layer without weights serves them as it is."""
    wide: dict[type[nn.Module], type[Wide]] = {
        nn.Linear: WideLinear,
        nn.GroupNorm: WideGroupNorm,
        nn.LayerNorm: WideLayerNorm,
        nn.Dropout: WideDropout,
        **dict.fromkeys(CONVOLUTIONS, WideConvolution),
        **dict.fromkeys(TRANSPOSED, WideTransposedConvolution),
        **dict.fromkeys(BATCH_NORMS, WideBatchNorm),
    }
    kind = type(same[0])
    return wide[kind](same) if kind in wide else same[0]
