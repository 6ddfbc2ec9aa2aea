"""How nets run fastest here: measured before the first step, and kept in the run.

The same weights run in several ways that differ in rounding alone: copies of a net as one wide
operation or one after the other, convolutions with channels first or last in memory. Which is
faster belongs to the processor, the nets and the batch. What was chosen stays in the checkpoint, so
that a run goes on as it began, wherever that is.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmgen.batch import Batch
from mmgen.errors import listed
from mmgen.nets.replicate import Vectorised, Way
from mmgen.nets.wide import WideConvolution, WideTransposedConvolution
from mmgen.seeding import random_state
from mmgen.training.records import Execution, Precision

if TYPE_CHECKING:
    from mmgen.training.loop import Training

LEAST = 1_000_000
"""Of a model with fewer parameters nothing is measured: a step takes no time that matters."""

GAIN = 1.08
"""How many times as fast another way has to be to be chosen."""

ROUNDS, ENOUGH = 5, 0.5
"""Measurements of each way at most, and seconds after which fewer do."""

ALIKE = 0.01
"""By which share of it the loss of a batch may differ in bfloat16."""


def words(execution: Execution) -> str:
    """Says what is unusual, such as ``"channels last"``; nothing where nothing is."""
    looped = [name for name, way in execution.ways.items() if way == "loop"]
    said = ["channels last"] if execution.channels_last else []
    said += [f"copies one by one of {listed(looped)}"] if looped else []
    return "; ".join(said)


def check(model: nn.Module, execution: Execution) -> None:
    """Checks that a model can run so.

    Raises:
        ValueError: If it has no copies of a net that is named.
    """
    if unknown := set(execution.ways) - set(copied(model)):
        raise ValueError(f"there are no copies of a net {min(unknown)[:80]!r}")


def apply(model: nn.Module, execution: Execution) -> None:
    """Makes the nets of a model run so."""
    for name, net in copied(model).items():
        net.way = execution.ways.get(name, "wide")
    lay(model, channels_last=execution.channels_last)


def copied(model: nn.Module) -> dict[str, Vectorised]:
    """Returns the nets with copies, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Vectorised) and module.copies > 1
    }


def lay(model: nn.Module, *, channels_last: bool) -> None:
    """Lays the weights of two-dimensional convolutions out in memory, their values as they are."""
    for weight in convolutions(model):
        # (…, in, H, W), of copies with one dimension more in front: those of one copy and the next
        # then lie as one wide convolution reads them.
        if channels_last:
            weight.data = weight.data.movedim(-3, -1).contiguous().movedim(-1, -3)
        else:
            weight.data = weight.data.contiguous()


def convolutions(model: nn.Module) -> list[nn.Parameter]:
    """Lists the weights of all two-dimensional convolutions."""
    plain, wide = (nn.Conv2d, nn.ConvTranspose2d), (WideConvolution, WideTransposedConvolution)
    weights: list[nn.Parameter] = []
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(module, plain) or (isinstance(module, wide) and weight.dim() == 5):
            weights.append(weight)
    return weights


def measure(training: "Training", x: Batch) -> Execution:
    """Finds out how a model runs fastest, and makes it run so.

    Weights, buffers, gradients and the random state are left as they were.

    Args:
        training: Before its first step.
        x: A batch.

    Returns:
        What was chosen, which the training then has.
    """
    model, config = training.model, training.config
    if sum(p.numel() for p in model.parameters()) < LEAST:
        return training.execution
    model.train()
    with _unchanged(model, training.device):
        if config.precision == "auto":
            training.execution = Execution(precision=_precision(training, x))
        if not config.benchmark or config.compile:
            return training.execution
        chosen = training.execution
        ways = _ways(training, x)
        apply(model, chosen.model_copy(update={"ways": ways}))
        last = bool(convolutions(model)) and _channels_last(training, x)
        training.execution = chosen.model_copy(update={"ways": ways, "channels_last": last})
        apply(model, training.execution)
    return training.execution


def _precision(training: "Training", x: Batch) -> Precision:
    """Chooses bfloat16 where it is faster, and the loss of a batch the same but for rounding."""
    device = training.device
    a = torch.ones(512, 512, device=device)
    b = a.bfloat16()
    # Where there are no units for it, a step may take minutes: products tell as much.
    if _gain(lambda: a @ a, lambda: b @ b, device) < GAIN:
        return "float32"
    losses: dict[Precision, Tensor] = {}

    def step(precision: Precision) -> None:
        training.execution = Execution(precision=precision)
        with random_state(device, 0):
            losses[precision] = training.backward(x, 1.0)["loss"]

    clear = training.model.zero_grad
    gain = _gain(lambda: step("float32"), lambda: step("bfloat16"), device, (clear, clear))
    exact, rounded = losses["float32"], losses["bfloat16"]
    alike = bool((rounded - exact).abs() <= ALIKE * exact.abs())
    return "bfloat16" if gain >= GAIN and alike else "float32"


def _ways(training: "Training", x: Batch) -> dict[str, Way]:
    inputs, known = _inputs(training, x), dict[str, Way]()
    ways: dict[str, Way] = {}
    for name, net in copied(training.model).items():
        if name in inputs:
            alike = f"{net} {net.copies} {inputs[name].shape}"
            if alike not in known:
                read = inputs[name]
                known[alike] = fastest(net, read, training.device, training.autocast)
            ways[name] = known[alike]
    return {name: way for name, way in ways.items() if way != "wide"}


def fastest(
    net: Vectorised,
    x: Tensor,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Way:
    """Measures which way of running a net's copies is fastest, forward and backward.

    Args:
        net: Its way is ``wide`` afterwards.
        x: What its copies read.
        device: Where it is.
        autocast: Returns the context in which it runs forward.
    """
    parameters = [*net.parameters()]

    def run(way: Way) -> None:
        net.way = way
        with autocast():
            out = net(x)
        if parameters:
            torch.autograd.grad(out, parameters, torch.ones_like(out))

    gain = _gain(lambda: run("wide"), lambda: run("loop"), device)
    net.way = "wide"
    return "loop" if gain >= GAIN else "wide"


def _inputs(training: "Training", x: Batch) -> dict[str, Tensor]:
    """Returns what nets with copies read of a batch."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            if arguments and isinstance(arguments[0], Tensor):
                seen.setdefault(name, arguments[0].detach())

        return hook

    hooks = [
        net.register_forward_pre_hook(keep(name)) for name, net in copied(training.model).items()
    ]
    try:
        with training.autocast():
            training.model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _channels_last(training: "Training", x: Batch) -> bool:
    def laid(channels_last: bool) -> Callable[[], None]:
        def before() -> None:
            training.model.zero_grad()
            lay(training.model, channels_last=channels_last)

        return before

    def step() -> None:
        training.backward(x, 1.0)

    gain = _gain(step, step, training.device, (laid(False), laid(True)))
    return gain >= GAIN


def _gain(
    first: Callable[[], object],
    second: Callable[[], object],
    device: torch.device,
    before: tuple[Callable[[], object], Callable[[], object]] = (lambda: None, lambda: None),
) -> float:
    """Returns how many times as long the first takes as the second, the best of each.

    They alternate, so that a busy machine slows both; what is done ``before`` each is not timed.
    """
    best = [math.inf, math.inf]
    started = time.perf_counter()
    for number in range(ROUNDS + 1):
        for at, run in enumerate((first, second)):
            before[at]()
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            if number:  # the first time, algorithms are chosen and memory is taken
                best[at] = min(best[at], time.perf_counter() - start)
        if number > 1 and time.perf_counter() - started > ENOUGH:
            break
    return best[0] / best[1]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts buffers, gradients and the random state back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with random_state(device, 0):
        try:
            yield
        finally:
            model.zero_grad(set_to_none=True)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
