"""Independent copies of one net on the same input, run as one wide operation.

JMVAE-kl needs 2^(K−1) copies of each modality's encoder. A Python loop over copies launches that
many small operations; here linear, convolution and normalisation layers hold the weights of all
copies in one tensor, and run as one wide, grouped or batched operation. What comes before the first
layer with weights is computed once, and that layer reads the one shared input without copying it.
On some processors the loop is faster none the less: :attr:`Vectorised.way` says how the same
weights run, with equal values and gradients but for rounding.

Inside, activations are ``(B, C, *event)``: row first, then copy. Convolutions see that as grouped
channels without a copy, linear layers as a batched product through strides.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmgen.nets.blocks import Log1p
from mmgen.nets.wide import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED, Wide, unflatten, widen

ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Hardtanh, nn.ReLU6, nn.Identity, Log1p,
)  # fmt: skip
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


Way = Literal["wide", "loop"]
"""How copies run: as one wide operation a layer, or one copy after the other."""


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
    """Copies of a net with the weights of all in one tensor a layer.

    Args:
        layers: The copies' layers, flattened: the same types in the same order in each copy.

    Attributes:
        way: How they run; to be set at any time.
    """

    way: Way = "wide"

    def __init__(self, layers: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.copies = len(layers)
        self.layers = nn.ModuleList(widen(same) for same in zip(*layers, strict=True))

    def forward(self, x: Tensor, only: Sequence[int] | None = None) -> Tensor:
        """Maps ``(B, *shape)`` to ``(copies, B, features)``."""
        return self._loop(x) if self.way == "loop" and only is None else self._wide(x, only)

    def _loop(self, x: Tensor) -> Tensor:
        layers = [*self.layers]
        while layers and not isinstance(layers[0], Wide):  # without weights: once for all copies
            x = layers.pop(0)(x)
        if not layers:
            return x.expand(self.copies, *x.shape)
        nets = zip(*(_alone(layer, self.copies) for layer in layers), strict=True)
        return torch.stack([_chained(x, net) for net in nets])

    def _wide(self, x: Tensor, only: Sequence[int] | None) -> Tensor:
        copies = self.copies if only is None else len(only)
        chosen = None if only is None else _picked(only, x.device)
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


def _alone(layer: nn.Module, copies: int) -> list[Callable[[Tensor], Tensor]]:
    """Returns a layer of each copy; one without weights is the same for all."""
    return layer.alone(copies) if isinstance(layer, Wide) else [layer] * copies


def _chained(x: Tensor, net: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    for layer in net:
        x = layer(x)
    return x


def _picked(only: Sequence[int], device: torch.device) -> Tensor | slice:
    """Returns an index of copies; of one, a slice: its weights are read where they lie."""
    return slice(only[0], only[0] + 1) if len(only) == 1 else torch.tensor(only, device=device)


def _spread(x: Tensor, copies: int) -> Tensor:
    return x.unsqueeze(1).expand(-1, copies, *x.shape[1:])


def _weightless(layer: Any, x: Tensor) -> Tensor:
    """Applies a layer without weights to ``(B, C, *event)``: dimensions are one further right."""
    if isinstance(layer, nn.Flatten):
        start, end = layer.start_dim + 1, layer.end_dim
        return x.flatten(start, end + 1 if end >= 0 else end)
    if isinstance(layer, nn.Unflatten):
        return unflatten(x, int(layer.dim) + 1, *layer.unflattened_size)
    if isinstance(layer, POOLING):
        pooled: Tensor = layer(x.flatten(1, 2))
        return unflatten(pooled, 1, *x.shape[1:3])
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
    if kind in CONVOLUTIONS or kind in TRANSPOSED:
        return bool(layer.padding_mode == "zeros")
    if kind in BATCH_NORMS:
        return bool(layer.momentum is not None and layer.track_running_stats and layer.affine)
    if kind in (nn.GroupNorm, nn.LayerNorm):
        return bool(layer.weight is not None and layer.bias is not None)
    if kind in (nn.Flatten, nn.Unflatten):
        first = layer.start_dim if kind is nn.Flatten else layer.dim
        return bool(first >= 1)
    return kind in (nn.Linear, nn.Dropout, *ELEMENTWISE, *POOLING)
