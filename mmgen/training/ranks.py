"""Training in several processes, each with a part of every batch: what the loop asks them for.

They are launched by torchrun. Gradients are added up by torch's DistributedDataParallel, or by
FSDP2, over gloo between CPUs and NCCL between GPUs. A batch is one batch, whoever computes its
rows: of each term a process has its rows' part of the mean over all, so that losses and gradients
are sums over processes, equal to those of one process but for rounding and noise. In one process
(:data:`ALONE`) every method is the trivial one.
"""

import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from mmgen import seeding, stopping
from mmgen.batch import Batch
from mmgen.console import hush, stderr, styled
from mmgen.data.batches import WHOLE, Batches, Part
from mmgen.errors import ConfigError, ElsewhereError
from mmgen.files.locks import writing
from mmgen.nets import shared_norm
from mmgen.nets.wide import BATCH_NORMS, WideBatchNorm
from mmgen.settings import TrainConfig
from mmgen.training import execution
from mmgen.training.launch import Launch, launched
from mmgen.training.watch import SILENT, Watch

if TYPE_CHECKING:
    from mmgen.training.loop import Training

TIMEOUT = timedelta(minutes=15)
"""How long processes wait for each other: while the first one measures, or writes a checkpoint.
That one of them has ended is known long before, see :mod:`mmgen.training.watch`."""

SHORTLY = timedelta(seconds=20)
"""How long a process that fails before they have met looks for the others."""

GONE = 2
"""The exit code where a process ended without a word."""


@dataclass(frozen=True)
class Share:
    """How many rows of a batch count here, and how many it has in all."""

    own: int
    whole: int


class _Member:
    """One of the processes that train together.

    Attributes:
        part: Which of them it is.
    """

    part: Part = WHOLE

    @property
    def size(self) -> int:
        """How many there are."""
        return self.part.ranks

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and prints."""
        return self.part.rank == 0


class Alone(_Member):
    """One process, and what the loop asks: :class:`Several` answers the same questions."""

    def check(self, config: TrainConfig, losses: int = 1) -> None:
        """Checks that a training, of so many losses, can be shared.

        Raises:
            ConfigError: If it cannot.
        """

    def device(self, device: torch.device) -> torch.device:
        """Returns the device of this process.

        Raises:
            ConfigError: If there is none for each.
        """
        return device

    def wrap(self, training: "Training") -> None:
        """Shares a training, which is equal in all processes, from its next step on."""

    def share(self, batches: Batches, number: int, x: Batch) -> Share:  # noqa: ARG002
        """Returns how many rows of a batch count here, of which ``x`` was read."""
        return Share(x.rows, x.rows)

    def weight(self, share: Share) -> float | None:  # noqa: ARG002
        """Returns this process's share of the rows of all; ``None`` where all are its own."""
        return None

    def total(self, values: Tensor) -> Tensor:
        """Returns the sum over processes."""
        return values

    def any(self, flags: Tensor) -> Tensor:
        """Returns which flags are set in any process."""
        return flags

    def stops(self, asked: bool) -> bool:
        """Returns whether to stop after this step: the same in all, whichever was asked to."""
        return asked

    def told(self, words: str) -> str:
        """Returns the words of the main process."""
        return words

    def meet(self) -> None:
        """Waits until all are here."""

    def own(self, weight: Tensor) -> Tensor:
        """Returns what lies here of a weight."""
        return weight

    def gathered(self) -> AbstractContextManager[Any]:
        """Lets the model be called as it is for a while."""
        return nullcontext()

    def whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns tensors as one process would have them, where this is the main one."""
        return tensors

    def each(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the values of all: of the main one by name, of others ``ranks/1/name``."""
        return values

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        """Makes the main process the only one that writes to a folder."""
        return writing(folder)

    def command(self, command: str) -> str:
        """Returns how a command is typed for as many processes."""
        return command

    def close(self) -> None:
        """Waits for all to be done; each is alone from then on."""

    def last_word(self, error: BaseException | None, code: int, tell: Callable[[], object]) -> None:  # noqa: ARG002
        """Says what ended this process; of several, one says it, and this does not return.

        Args:
            error: What ended it.
            code: The exit code.
            tell: Says so.
        """
        tell()


ALONE = Alone()


class Losses(nn.Module):
    """What is wrapped: a batch to losses, whose gradients wrappers add up, and what is noted of it.

    Wrappers look for tensors in what a module returns; an :class:`Objective` hides them.
    """

    def __init__(self, training: "Training", ranks: "Several") -> None:
        super().__init__()
        self.model = training.model
        self.ranks = ranks
        self.shared = weakref.proxy(training)  # which refers to this
        # Where torch looks for parameters without a gradient it complains of finding none.
        self.never_used = nn.Parameter(training.model.like.new_zeros(1))

    def forward(
        self, x: Batch, beta: Tensor | float, share: Share
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns the losses of groups, times the number of processes: their mean is taken."""
        self.ranks.agree_on_buffers()
        losses, noted = self.shared.losses(x, beta, share)
        return {name: loss * self.ranks.size for name, loss in losses.items()}, noted


class Several(_Member):
    """One of several processes.

    Args:
        launch: Which.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.part = Part(launch.rank, launch.size, launch.local_size)
        store = _store(TIMEOUT)
        self.watch = _watch(store, launch, self._end)
        self.watch.start()
        self.counting = shared_norm.Counting()
        self.sharded: Any = None
        self._buffers: list[Tensor] = []
        self._asked: tuple[Any, Tensor] | None = None
        nccl = torch.cuda.is_available() and distributed.is_nccl_available()
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if nccl else "cpu:gloo",
            store=store,
            rank=launch.rank,
            world_size=launch.size,
            timeout=TIMEOUT,
        )
        seeding.join(launch.rank)

    def check(self, config: TrainConfig, losses: int = 1) -> None:
        """Checks that each has a row of a full batch, and FSDP2 one loss."""
        rows = config.batch_size
        if rows < self.size:
            raise ConfigError(
                f"train.batch_size = {rows}: a batch is shared by {self.size} processes, each of "
                "which needs a row of it at least"
            )
        if config.parallel == "fsdp" and losses > 1:
            raise ConfigError(
                'train.parallel = "fsdp": a model with a critic has several losses, each of which '
                'trains a part of it; FSDP2 takes one.\n  Try train.parallel="ddp"'
            )

    def device(self, device: torch.device) -> torch.device:
        """Returns the GPU of this process, or the CPU that all are on."""
        if device.type == "cpu":
            return device
        if device.type != "cuda":
            raise ConfigError(
                f"train.device: {self.size} processes train together on cuda or cpu, not on "
                f"{device.type}.\n  Try train.device=cpu"
            )
        if self.launch.local_size > torch.cuda.device_count():
            raise ConfigError(
                f"train.device: there are {self.launch.local_size} processes on this machine, but "
                f"{torch.cuda.device_count()} CUDA devices; each needs its own"
            )
        torch.cuda.set_device(self.launch.local_rank)
        return torch.device("cuda", self.launch.local_rank)

    def wrap(self, training: "Training") -> None:
        """Adds up gradients with DistributedDataParallel, or FSDP2, and shares statistics."""
        model = training.model
        for module in model.modules():
            if type(module) in BATCH_NORMS:
                shared_norm.share(module, self.counting)
            elif isinstance(module, WideBatchNorm):
                module.counting = self.counting
        norms = [m for m in model.modules() if isinstance(m, (*BATCH_NORMS, WideBatchNorm))]
        agreed = {id(buffer) for norm in norms for buffer in norm.buffers()}
        self._buffers = [
            b for b in model.buffers() if b.is_floating_point() and id(b) not in agreed
        ]
        losses = Losses(training, self)
        if training.config.parallel == "fsdp":
            self._shard(training, losses)
            training.shared = losses
            return
        with warnings.catch_warnings():
            # Newer versions of torch have another name for broadcast_buffers.
            warnings.simplefilter("ignore", FutureWarning)
            training.shared = nn.parallel.DistributedDataParallel(
                losses, broadcast_buffers=False, find_unused_parameters=True
            )

    def _shard(self, training: "Training", losses: nn.Module) -> None:
        """Leaves each process its part of weights and moments.

        All as one: FSDP2 gathers what is within a module before its ``forward``, but a model may
        ask its nets for more, and decoders return distributions, which hide their tensors.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import distribute_tensor

        model = training.model
        if training.execution.channels_last:  # FSDP2 cuts weights that lie in order
            execution.lay(model, channels_last=False)
            update = {"channels_last": False}
            training.execution = training.execution.model_copy(update=update)
        before = {name: o.state_dict()["state"] for name, o in training.optimisers.items()}
        mesh = init_device_mesh(training.device.type, (self.size,))
        self.sharded = fully_shard(losses, mesh=mesh)
        training.group()

        def parts(state: Mapping[str, Tensor], parameter: Any) -> dict[str, Tensor]:
            return {
                name: distribute_tensor(value.contiguous(), mesh, parameter.placements)
                if value.dim()
                else value
                for name, value in state.items()
            }

        for name, optimiser in training.optimisers.items():
            parameters = training.groups[name].parameters
            states = {n: parts(state, parameters[n]) for n, state in before[name].items()}
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": states, "param_groups": groups})

    def agree_on_buffers(self) -> None:
        """Gives all the main process's buffers of real numbers, but for shared statistics."""
        for buffer in self._buffers:
            distributed.broadcast(buffer, 0)

    def share(self, batches: Batches, number: int, x: Batch) -> Share:  # noqa: ARG002
        """Returns the rows of this process; none where it reads another's, see Batches.epoch."""
        own, whole = batches.rows(number)
        self.counting.counts = own > 0
        return Share(own, whole)

    def weight(self, share: Share) -> float:
        """Returns this process's share of the rows of all."""
        return share.own / share.whole

    def total(self, values: Tensor) -> Tensor:
        """Returns the sum over processes, the same bits in all."""
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def any(self, flags: Tensor) -> Tensor:
        """Returns which flags are set in any process."""
        return self.total(flags.int()) > 0

    def stops(self, asked: bool) -> bool:
        """Returns whether any process was asked to by the call before, and asks all anew."""
        before, self._asked = self._asked, None
        stopped = False
        if before is not None:
            before[0].wait()
            stopped = bool(before[1])
        flag = torch.tensor(int(asked), device="cpu")  # over gloo: no device is waited for
        self._asked = distributed.all_reduce(flag, async_op=True), flag
        return stopped

    def told(self, words: str) -> str:
        """Returns the words of the main process."""
        content = torch.tensor([*words.encode()], dtype=torch.uint8, device="cpu")
        length = torch.tensor(len(content), device="cpu")
        distributed.broadcast(length, 0)
        if not self.main:
            content = torch.empty(int(length), dtype=torch.uint8, device="cpu")
        distributed.broadcast(content, 0)
        return bytes(content.tolist()).decode()

    def meet(self) -> None:
        """Waits until all are here."""
        self.total(torch.zeros(1, device="cpu"))

    def own(self, weight: Tensor) -> Tensor:
        """Returns what lies here of a weight."""
        local: Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
        return local

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Holds all weights of a sharded model for a while, and the same buffers as all."""
        self.agree_on_buffers()
        if self.sharded is None:
            yield
            return
        self.sharded.unshard()
        try:
            yield
        finally:
            self.sharded.reshard()

    def whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns whole tensors where this is the main process; of sharded ones, on the CPU."""
        if self.sharded is None:
            return tensors
        kept = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor().cpu() if hasattr(tensor, "full_tensor") else tensor
            if self.main:
                kept[name] = full
        return kept

    def each(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the values of all, gathered over the CPUs."""
        found: dict[str, Tensor] = {}
        for name, value in values.items():
            own = value.cpu()
            parts = [torch.empty_like(own) for _ in range(self.size)]
            distributed.all_gather(parts, own)
            found |= {of_rank(name, rank): part for rank, part in enumerate(parts)}
        return found

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        """Locks the folder where this is the main process."""
        return writing(folder) if self.main else nullcontext()

    def command(self, command: str) -> str:
        """Returns the command as torchrun takes it, where one of them launches all."""
        size = self.launch.local_size
        return f"torchrun --nproc-per-node {size} -m {command}" if size == self.size else command

    def close(self) -> None:
        """Waits for all, and leaves the group."""
        if self._asked is not None:
            self._asked[0].wait()
        self.meet()
        self.watch.stop()
        distributed.destroy_process_group()
        seeding.join(None)
        _Process.ranks = ALONE

    def last_word(self, error: BaseException | None, code: int, tell: Callable[[], object]) -> None:
        """Ends this process, after one of all has said why they end."""
        # Whoever launched the processes ends those that are left when one has ended.
        with stopping.handled(stopping.heedless):
            other, gone = self.watch.claimed(), None
            if other is None:
                if isinstance(error, ElsewhereError):
                    other, gone = self.watch.wait(TIMEOUT.total_seconds())
                elif _of_connection(error):
                    other, gone = self.watch.wait(1.5 * SILENT)
                elif isinstance(error, KeyboardInterrupt):
                    gone = self.watch.gone()
            if gone is not None:
                code, tell = GONE, partial(self._tell_gone, gone)
            if other is None and self.watch.claim(code):
                self.watch.stop()
                hush(False)
                tell()
            _leave(code if other is None else other)

    def _tell_gone(self, rank: int) -> None:
        who = f"process {rank} of {self.size} (they are counted from 0) ended without a word"
        why = "it was killed, by the system where memory was short"
        if rank < 0:
            who, why = "what launched the processes is gone", "it was killed"
        again = "If there is a checkpoint, go on from it with --resume"
        stderr.print(styled(("error:", "bold red"), f" {who}: {why}.\n  {again}"))

    def _end(self, code: int | None, gone: int) -> None:
        """Ends this process from the thread that watches, where the main one does not by itself."""
        if code is None and self.watch.claim(GONE):
            hush(False)
            self._tell_gone(gone)
        _leave(GONE if code is None else code)


Ranks = Alone | Several
"""The processes that train together."""


def of_rank(name: str, rank: int) -> str:
    """Returns what a value of a process is called in a checkpoint.

    Examples:
        >>> of_rank("random/cpu", 0), of_rank("random/cpu", 1)
        ('random/cpu', 'ranks/1/random/cpu')
    """
    return f"ranks/{rank}/{name}" if rank else name


class _Process:
    """Whom this process trains with; ``None`` before it was asked."""

    ranks: Ranks | None = None


def join() -> Ranks:
    """Meets the processes that were launched with this one; the second time returns the same.

    All but the first print nothing from then on.

    Raises:
        ConfigError: If they cannot be met.
    """
    if _Process.ranks is None:
        launch = launched()
        if launch is not None and launch.rank:
            hush(True)
            warnings.simplefilter("ignore")
        try:
            _Process.ranks = ALONE if launch is None else Several(launch)
        except (distributed.DistError, RuntimeError) as error:
            cause = str(error).partition("\n")[0]
            raise ConfigError(f"the processes could not meet: {cause}") from error
    return _Process.ranks


def last_word(
    launch: Launch, error: BaseException | None, code: int, tell: Callable[[], object]
) -> None:
    """Has one of the processes that were launched together say what ended them.

    Args:
        launch: Which this is.
        error: What ended it.
        code: The exit code.
        tell: Says so.
    """
    if _Process.ranks is not None:
        _Process.ranks.last_word(error, code, tell)
        return
    # What is wrong with a command may be found before they have met, and by each of them.
    try:
        speaks = _watch(_store(SHORTLY), launch).claim(code)
    except Exception:
        speaks = launch.rank == 0
    if speaks:
        tell()
    _leave(code)


def _store(timeout: timedelta) -> Any:
    """Returns where processes meet, as who launched them says."""
    store, _, _ = next(iter(rendezvous("env://", timeout=timeout)))
    return store


def _watch(
    store: Any, launch: Launch, end: Callable[[int | None, int], object] = lambda *_: None
) -> Watch:
    # Of an earlier attempt, which the launcher repeats, nothing is to be read.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Watch(PrefixStore(f"mmgen/{attempt}", store), launch.rank, launch.size, end)


def _of_connection(error: BaseException | None) -> bool:
    """Returns whether an error may be that of another process, which ended."""
    while error is not None:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _leave(code: int) -> None:
    """Ends the process at once: an orderly end would wait for the others."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
