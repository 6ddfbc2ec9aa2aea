"""Independent copies of one net on the same input, run as one wide operation.

JMVAE-kl needs 2^(K−1) copies of each modality's encoder. A Python loop over copies launches that
many small operations; here linear, convolution and normalisation layers hold the weights of all
copies in one tensor, and run as one wide, grouped or batched operation. The first layer with
weights reads the shared input once.

Inside, activations are ``(B, C, *event)``: row first, then copy. Convolutions see that as grouped
channels without a copy, linear layers as a batched product through strides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Hardtanh, nn.ReLU6, nn.Identity,
)  # fmt: skip
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def replicate(make: Callable[[], nn.Module], copies: int) -> "Vectorised | Looped":
    """Makes independent copies of a net: one module ``(B, *shape) -> (copies, B, features)``.

    Args:
        make: Builds one net ``(B, *shape) -> (B, features)`` with fresh weights.
        copies: How many.

    Returns:
        One wide module if all layers are known, else a plain loop with the same values and
        gradients. Its ``forward(x, only)`` runs just the copies numbered in ``only``.
    """
    nets = [make() for _ in range(copies)]
    return vectorised(nets) or Looped(nets)


class Looped(nn.Module):
    """Copies of a net as a plain loop: works for any net.

    Args:
        nets: The copies, each ``(B, *shape) -> (B, features)``.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.copies = len(nets)

    def forward(self, x: Tensor, only: Sequence[int] | None = None) -> Tensor:
        """Maps ``(B, *shape)`` to ``(copies, B, features)``."""
        nets = self.nets if only is None else [self.nets[i] for i in only]
        return torch.stack([net(x) for net in nets])


class Vectorised(nn.Module):
    """Copies of a net as one wide operation a layer.

    Args:
        layers: The copies' layers, flattened: the same types in the same order in each copy.
    """

    def __init__(self, layers: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.copies = len(layers)
        self.layers = nn.ModuleList(_widen(same) for same in zip(*layers, strict=True))

    def forward(self, x: Tensor, only: Sequence[int] | None = None) -> Tensor:
        """Maps ``(B, *shape)`` to ``(copies, B, features)``."""
        copies = self.copies if only is None else len(only)
        chosen = None if only is None else torch.tensor(only, device=x.device)
        shared = True
        for layer in self.layers:
            if isinstance(layer, Wide):
                if shared and not layer.reads_shared_input:
                    x, shared = _spread(x, copies), False
                x, shared = layer(x, shared, chosen), False
            else:
                x = layer(x) if shared else _weightless(layer, x)
        x = _spread(x, copies) if shared else x
        return x.transpose(0, 1)


def _spread(x: Tensor, copies: int) -> Tensor:
    return x.unsqueeze(1).expand(-1, copies, *x.shape[1:])


def _unflatten(x: Tensor, dim: int, *sizes: int) -> Tensor:
    unflattened: Tensor = x.unflatten(dim, sizes)
    return unflattened


def _weightless(layer: Any, x: Tensor) -> Tensor:
    """Applies a layer without weights to ``(B, C, *event)``: dimensions are one further right."""
    if isinstance(layer, nn.Flatten):
        start, end = layer.start_dim + 1, layer.end_dim
        return x.flatten(start, end + 1 if end >= 0 else end)
    if isinstance(layer, nn.Unflatten):
        return _unflatten(x, int(layer.dim) + 1, *layer.unflattened_size)
    if isinstance(layer, POOLING):
        pooled: Tensor = layer(x.flatten(1, 2))
        return _unflatten(pooled, 1, *x.shape[1:3])
    elementwise: Tensor = layer(x)
    return elementwise


def vectorised(nets: Sequence[nn.Module]) -> Vectorised | None:
    """Makes one wide module out of nets alike, or ``None`` if a layer is not known."""
    layers = [_flatten(net) for net in nets]
    if len({tuple(repr(layer) for layer in net) for net in layers}) != 1:
        return None
    if not all(_known(layer) for layer in layers[0]):
        return None
    # One weight in two places, or one that does not learn, would lose that in the stack.
    parameters = [p for net in layers for layer in net for p in layer.parameters()]
    if len({id(p) for p in parameters}) < len(parameters):
        return None
    if not all(p.requires_grad for p in parameters):
        return None
    return Vectorised(layers)


def _flatten(net: nn.Module) -> list[nn.Module]:
    if type(net) is nn.Sequential and not _hooked(net):
        return [layer for child in net for layer in _flatten(child)]
    return [net]


def _hooked(net: nn.Module) -> bool:
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    return any(getattr(net, f"_{kind}_hooks") for kind in kinds)


def _known(layer: Any) -> bool:
    # Exact types: a subclass may compute something else. Nor may a hook be lost.
    if _hooked(layer):
        return False
    kind = type(layer)
    if kind in CONVOLUTIONS:
        return bool(layer.padding_mode == "zeros")
    if kind in BATCH_NORMS:
        return bool(layer.momentum is not None and layer.track_running_stats and layer.affine)
    if kind in (nn.GroupNorm, nn.LayerNorm):
        return bool(layer.weight is not None and layer.bias is not None)
    if kind in (nn.Flatten, nn.Unflatten):
        first = layer.start_dim if kind is nn.Flatten else layer.dim
        return bool(first >= 1)
    return kind in (nn.Linear, nn.Dropout, *ELEMENTWISE, *POOLING)


def _widen(same: Sequence[nn.Module]) -> nn.Module:
    wide: dict[type[nn.Module], type[Wide]] = {
        nn.Linear: WideLinear,
        nn.GroupNorm: WideGroupNorm,
        nn.LayerNorm: WideLayerNorm,
        nn.Dropout: WideDropout,
        **dict.fromkeys(CONVOLUTIONS, WideConvolution),
        **dict.fromkeys(BATCH_NORMS, WideBatchNorm),
    }
    kind = type(same[0])
    return wide[kind](same) if kind in wide else same[0]


class Wide(nn.Module):
    """One layer of all copies.

    ``forward(x, shared, chosen)``: ``x`` is ``(B, *event)`` if shared, else ``(B, C, *event)``;
    the output is ``(B, C, *event)``. ``chosen`` numbers the copies to run.
    """

    reads_shared_input = False

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__()

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _stack(self, same: Sequence[nn.Module], *names: str) -> None:
        for name in names:
            tensors = [getattr(layer, name) for layer in same]
            if tensors[0] is None:
                self.register_parameter(name, None)
            elif isinstance(tensors[0], nn.Parameter):
                stacked = torch.stack([tensor.detach() for tensor in tensors])
                setattr(self, name, nn.Parameter(stacked))
            else:
                self.register_buffer(name, torch.stack(tensors))

    def _pick(self, name: str, chosen: Tensor | None) -> Any:
        tensor = getattr(self, name)
        return tensor if tensor is None or chosen is None else tensor[chosen]


class WideLinear(Wide):
    """Linear layers: one wide product on a shared input, else one batched product."""

    reads_shared_input = True

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias")  # (C, out, in), (C, out)

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        copies, out, _ = weight.shape
        if shared:
            wide: Tensor = F.linear(
                x, weight.flatten(0, 1), None if bias is None else bias.flatten()
            )
            return _unflatten(wide, -1, copies, out).movedim(-2, 1)
        rows = x.movedim(1, 0).flatten(1, -2)  # (C, rows, in)
        if bias is None:
            product = torch.bmm(rows, weight.mT)
        else:
            product = torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
        return _unflatten(product, 1, x.shape[0], *x.shape[2:-1]).movedim(0, 1)


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

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        copies, out = weight.shape[:2]
        x = self.convolve(
            x if shared else x.flatten(1, 2),
            weight.flatten(0, 1),
            None if bias is None else bias.flatten(),
            self.stride,
            self.padding,
            self.dilation,
            1 if shared else copies * self.groups,
        )
        return _unflatten(x, 1, copies, out)


class WideBatchNorm(Wide):
    """Batch normalisation: the copies' channels side by side."""

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias", "running_mean", "running_var")
        first = same[0]
        self.momentum, self.eps = first.momentum, first.eps

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | None) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (self._pick(n, chosen).flatten() for n in names)
        training = self.training and chosen is None  # some copies alone: at generation only
        x_wide = x.flatten(1, 2)
        wide = F.batch_norm(x_wide, mean, variance, weight, bias, training, self.momentum, self.eps)
        return _unflatten(wide, 1, *x.shape[1:3])


class WideGroupNorm(Wide):
    """Group normalisation: the copies' groups side by side."""

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias")
        first = same[0]
        self.groups, self.eps = first.num_groups, first.eps

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        groups = weight.shape[0] * self.groups
        wide = F.group_norm(x.flatten(1, 2), groups, weight.flatten(), bias.flatten(), self.eps)
        return _unflatten(wide, 1, *x.shape[1:3])


class WideLayerNorm(Wide):
    """Layer normalisation: one normalisation, then each copy's own scale and shift."""

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self._stack(same, "weight", "bias")
        first = same[0]
        self.shape, self.eps = first.normalized_shape, first.eps

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | None) -> Tensor:
        weight, bias = self._pick("weight", chosen), self._pick("bias", chosen)
        between = (1,) * (x.dim() - 2 - len(self.shape))  # dimensions that are not normalised
        weight = weight.reshape(-1, *between, *self.shape)
        bias = bias.reshape(-1, *between, *self.shape)
        return torch.addcmul(bias, F.layer_norm(x, self.shape, eps=self.eps), weight)


class WideDropout(Wide):
    """Dropout: each copy its own mask."""

    def __init__(self, same: Sequence[Any]) -> None:
        super().__init__(same)
        self.p = same[0].p

    def forward(self, x: Tensor, shared: bool, chosen: Tensor | None) -> Tensor:
        return F.dropout(x, self.p, self.training)
