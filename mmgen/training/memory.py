"""What a training is made of and what it needs, before any memory is taken for it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.inference.sample import sample_latent
from mmgen.latent.base import sample
from mmgen.latent.encoder import SubsetEncoder
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.nets.by_modality import ByModality

META = torch.device("meta")

MOST_LAYERS = 8
"""More layers of a net than this are not told."""


@dataclass(frozen=True, repr=False)
class Net(OneLine):
    """One net of a model, or several copies of it that run as one.

    Attributes:
        name: Where it is: ``decoders.image``.
        copies: How many independent copies.
        layers: Its layers in words: ``"784 → 512 → 512"``.
        parameters: Of all copies together.
    """

    name: str
    copies: int
    layers: str
    parameters: int


@dataclass(frozen=True)
class Memory:
    """What training takes, in bytes.

    Attributes:
        weights: The parameters.
        optimiser: Adam's two moments of each.
        step: The most that a step takes beside: activations, gradients, what is in between.
        data: Stored values that are kept on the device.
        process: What is resident of this process already: interpreter, libraries, opened data.
        libraries: What of them is read when training begins.
        copied: The largest tensor, which is copied to the CPU on its way into a checkpoint.
        kept: Freed memory that C's allocator keeps in holes.
        afterwards: The most that figures, report and the process's end take, when optimiser and
            resident data are gone.
        shared: Whether the device is the CPU, whose memory is that of the process.
    """

    weights: int
    optimiser: int
    step: int
    data: int = 0
    process: int = 0
    libraries: int = 0
    copied: int = 0
    kept: int = 0
    afterwards: int = 0
    shared: bool = True

    @property
    def total(self) -> int:
        """What training takes on the device."""
        return self.weights + self.optimiser + self.step + self.data

    @property
    def peak(self) -> int:
        """The most that is ever resident of this process."""
        training = self.total + self.kept if self.shared else self.copied
        return self.process + self.libraries + max(training, self.afterwards)


def nets(model: Model) -> list[Net]:
    """Lists every net of a model in the order of its attributes, modalities by name."""
    return [row for name, part in model.named_children() for row in _nets(name, part)]


def _nets(name: str, part: nn.Module) -> Iterator[Net]:
    if isinstance(part, ByModality):
        yield from (net for n, child in part.items() for net in _parts(f"{name}.{n}", child))
    elif isinstance(part, nn.ModuleList):
        for number, child in enumerate(part, start=1):
            yield from _nets(f"{name}.{number}", child)
    elif isinstance(part, SubsetEncoder):
        for label, child in part.named_children():
            yield from _nets(f"{name}.{label}", child)
    elif parameters := sum(p.numel() for p in part.parameters()):
        copies = int(getattr(part, "copies", 1))
        yield Net(name, copies, _layers(part), parameters)


def _parts(name: str, value: nn.Module | nn.Parameter) -> Iterator[Net]:
    if isinstance(value, nn.Module):
        yield from _nets(name, value)


def _layers(net: nn.Module) -> str:
    """Tells a net by the sizes of its layers: inputs, then the outputs of each."""
    if isinstance(copies := getattr(net, "nets", None), nn.ModuleList):
        return _layers(copies[0])
    sizes: list[str] = []
    for layer in net.modules():
        kind = type(layer).__name__.removeprefix("Wide")
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor):
            continue
        if kind.endswith("Linear"):  # (out, in), or copies of (in, out)
            before, after = weight.shape[1:] if weight.ndim == 3 else weight.shape[::-1]
            sizes += [str(before)] * (not sizes) + [str(after)]
        else:
            sizes.append(kind)
    if not sizes:
        return type(net).__name__
    return " → ".join([*sizes[:MOST_LAYERS], "…"] if len(sizes) > MOST_LAYERS else sizes)


def training_memory(
    model: Model,
    modalities: Mapping[str, Modality],
    rows: int,
    data: int = 0,
    lacking: Iterable[str] = (),
) -> Memory:
    """Measures what training needs, by one step on the meta device, which takes no memory.

    In float32: bfloat16 takes less, but the meta device has no autocast to tell how much.

    Args:
        model: On the meta device.
        modalities: By name.
        rows: Observations in a batch.
        data: Bytes of stored values that are kept on the device.
        lacking: The modalities that some rows lack.
    """
    dtype = torch.get_default_dtype()
    shapes = {n: (rows, *m.shape) for n, m in modalities.items()}
    weights = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    model.train()
    with _Live() as live:
        x = Batch(
            {n: torch.empty(s, dtype=dtype, device=META) for n, s in shapes.items()},
            {n: torch.empty(rows, dtype=torch.bool, device=META) for n in lacking} or None,
        )
        objective = model(x)
        losses = objective.losses(beta=torch.ones((), device=META))
        alone = len(losses) == 1
        for name, loss in losses.items():
            inputs = None if alone else list(model.parameter_groups()[name].parameters)
            loss.backward(retain_graph=not alone, inputs=inputs)
    model.zero_grad(set_to_none=True)
    moments = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    before = sum(values.nbytes for values in x.values())  # the last batch, held until the next is
    return Memory(weights, moments, live.peak + before, data)


MEASURED = 32
"""Samples that are generated to tell what one takes, so that what is made once hardly counts."""


def sample_memory(model: Model, modalities: Mapping[str, Modality]) -> float:
    """Measures what generating one sample takes, in bytes, on the meta device.

    An observation of every modality, what encodes and decodes it, and its mean and a draw. Zero if
    a net or a distribution cannot run there: then nothing is known.

    Args:
        model: On the meta device.
        modalities: By name.
    """
    dtype = torch.get_default_dtype()
    try:
        with torch.no_grad(), _Live() as live:
            x = Batch(
                {
                    n: torch.empty((MEASURED, *m.shape), dtype=dtype, device=META)
                    for n, m in modalities.items()
                }
            ).select(model.names)
            if model.directions is None:  # of every sample, iterative sampling encodes all anew
                z = sample(model.imputed_posterior(x))
            else:
                z = sample_latent(model, x, 1)[0]
            decoded = model.decode(z, x.select(model.decoder_given))
            kept = [(p, p.mean, p.sample()) for p in decoded.values()]
            del kept
    except Exception:  # of any kind: the nets and distributions of plugins
        return 0
    return int(live.peak) / MEASURED


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors made while it is active, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = {_key(t) for t in filter(_is, tree_leaves((args, kwargs)))}
        out = func(*args, **(kwargs or {}))
        for tensor in filter(_is, tree_leaves(out)):
            key = _key(tensor)
            if key not in self.seen | old:
                storage = tensor.untyped_storage()
                self.seen.add(key)
                self.now += storage.nbytes()
                finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _freed(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - the same for all views


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)
