"""Stored tensors ↔ a training: whether all of them fit, known before any of it is changed."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmgen import seeding
from mmgen.batch import Batch
from mmgen.errors import listed
from mmgen.files.tensors import Stored, TensorFile
from mmgen.latent.aggregate import FittedMixture
from mmgen.latent.alike import FittedPosterior
from mmgen.model import Model
from mmgen.nets.by_modality import ByModality
from mmgen.subsets import name as subset_name
from mmgen.training import execution
from mmgen.training.loop import Training
from mmgen.training.ranks import Ranks, of_rank
from mmgen.training.records import Counters

FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}

MOMENTS = {"exp_avg", "exp_avg_sq"}

DECISIONS = "decisions"
"""The random state by which several processes decide alike."""

RANDOM = 1 << 20
"""The most bytes of a random state; the CPU's has 5,056."""


def rename_old(module: nn.Module, tensors: TensorFile, prefix: str) -> None:
    """Renames weights of format 1, where a modality's net had a number: ``decoders.0.net``.

    Args:
        module: The module that they are for, whose order of modalities is the run's.
        tensors: The file.
        prefix: What names begin with there.
    """
    new = {}
    for path, part in module.named_modules():
        if isinstance(part, ByModality):
            for number, attribute in enumerate(part.weight_names):
                new[f"{prefix}{path}.{number}"] = f"{prefix}{path}.{attribute}"
    for name in [*tensors.stored]:
        for old in (o for o in new if name == o or name.startswith(f"{o}.")):
            tensors.stored[new[old] + name.removeprefix(old)] = tensors.stored.pop(name)
            break


def check_shapes(module: nn.Module, tensors: TensorFile, prefix: str) -> None:
    """Checks that stored weights are exactly a module's, by their header: none of them is read.

    Args:
        module: The module that they are for; it may be on the ``meta`` device.
        tensors: The file; names begin with ``prefix``.
        prefix: ``"model/"``.

    Raises:
        ValueError: If one is missing, unknown, or of another shape or type.
    """
    own = module.state_dict()
    stored = {n.removeprefix(prefix): s for n, s in tensors.stored.items() if n.startswith(prefix)}
    if missing := own.keys() - stored.keys():
        raise ValueError(f"there is no {min(missing)!r}")
    if unknown := stored.keys() - own.keys():
        raise ValueError(f"the model has no {min(unknown)[:80]!r}")
    for name, tensor in own.items():
        check_like(name, stored[name], tensor)


def check_weights(module: nn.Module, tensors: TensorFile, prefix: str) -> None:
    """Checks stored weights as :func:`check_shapes` does, and that they are numbers.

    Raises:
        ValueError: If one is missing, unknown, of another shape or type, or not finite.
    """
    check_shapes(module, tensors, prefix)
    for name, parameter in module.named_parameters():
        # Weights are checked before they are saved. Buffers may hold infinity: a mask does.
        if parameter.requires_grad and not finite(tensors, prefix + name):
            raise ValueError(f"{name!r} is not finite")


PRIOR, POSTERIORS = "prior/", "posteriors/"
"""What the names of tensors begin with that z is drawn by, beside a model's weights."""

MEMBERS = "members"
"""Of fitted posteriors: which modalities each subset has, ``(n, K)``; then the tensors of each."""


def fitted_prior(model: Model, tensors: TensorFile) -> FittedMixture | None:
    """Reads what was fitted for a model to draw z from given nothing; ``None`` if nothing was.

    Raises:
        ValueError: If it is damaged.
    """
    stored = _below(PRIOR, tensors)
    if not stored:
        return None
    if {*stored} != {*FittedMixture.TENSORS}:
        raise ValueError(
            f"a fitted prior has {listed(FittedMixture.TENSORS)}, not {listed(stored)}"
        )
    event = model.prior(Batch({})).event_shape
    return FittedMixture.stored(event, stored).to(model.like.device)


def posterior_tensors(model: Model) -> dict[str, Tensor]:
    """Returns the tensors of a model's fitted posteriors, by the names that they are stored by."""
    every = [*model.fitted_posteriors.items()]
    members = torch.zeros(len(every), len(model.names), dtype=torch.int64)
    stored = {POSTERIORS + MEMBERS: members}
    for number, (subset, fitted) in enumerate(every):
        for n in subset.split("+"):
            members[number, model.names.index(n)] = 1
        assert isinstance(fitted, FittedPosterior)
        stored |= {f"{POSTERIORS}{number}/{n}": t for n, t in fitted.tensors().items()}
    return stored


def fitted_posteriors(model: Model, tensors: TensorFile) -> ByModality[nn.Module]:
    """Reads what was fitted for a model to draw z from given subsets, by their names.

    Raises:
        ValueError: If it is damaged.
    """
    stored = _below(POSTERIORS, tensors)
    members = stored.pop(MEMBERS, torch.zeros(0, len(model.names)))
    if members.shape[1:] != (len(model.names),) or len(members) > len(stored):
        raise ValueError(f"{MEMBERS!r} are not subsets of {len(model.names)} modalities")
    event = model.prior(Batch({})).event_shape
    found: dict[str, nn.Module] = {}
    used = 0
    for number, row in enumerate(members.tolist()):
        S = tuple(n for n, has in zip(model.names, row, strict=True) if has)
        if not S or subset_name(S) in found or model.posterior(model.blank(S)) is None:
            raise ValueError(f"{MEMBERS!r} are not subsets that have encoders")
        prefix, width = f"{number}/", sum(math.prod(model.modalities[n].shape) for n in S)
        own = {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}
        used += len(own)
        found[subset_name(S)] = FittedPosterior.stored(event, width, own).to(model.like.device)
    if used != len(stored):
        raise ValueError(f"there are mixtures of no subset among {MEMBERS!r}")
    return ByModality(found)


def _below(prefix: str, tensors: TensorFile) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): tensors[n] for n in tensors if n.startswith(prefix)}


def finite(tensors: TensorFile, name: str) -> bool:
    """Tells whether all numbers of a stored tensor are finite, block by block."""
    # One pass, and no mask: a number that is not finite is the least or the largest, or both.
    return all(
        bool(torch.stack(block.aminmax()).isfinite().all())
        for block in tensors.blocks(name)
        if block.numel()
    )


def fits(stored: Stored, tensor: Tensor) -> bool:
    """Tells whether a stored tensor is of another's shape, and of a type to be read as its."""
    try:
        check_like("", stored, tensor)
    except ValueError:
        return False
    return True


def check_like(name: str, stored: Stored, tensor: Tensor) -> None:
    """Checks that a stored tensor is of another's shape, and of a type that can be read as its.

    Raises:
        ValueError: If it is not; names it.
    """
    if stored.shape != tuple(tensor.shape):
        raise ValueError(f"{name!r} has the shape {_shape(stored)}, not {tuple(tensor.shape)}")
    if tensor.is_floating_point() and stored.dtype not in FLOATS:
        raise ValueError(f"{name!r} is of the type {stored.dtype}")
    whole = not (stored.dtype.is_floating_point or stored.dtype.is_complex)
    if not tensor.is_floating_point() and not whole:
        raise ValueError(f"{name!r} is of the type {stored.dtype}, not {tensor.dtype}")


def _shape(stored: Stored) -> str:
    sizes = ", ".join(map(str, stored.shape[:8]))
    return f"({sizes}{', …' if len(stored.shape) > 8 else ''})"


def check_checkpoint(
    training: Training, tensors: TensorFile, counters: Counters, batches: int | None = None
) -> None:
    """Checks all of a checkpoint but the weights against a training, before that is changed.

    Args:
        training: The training that is to go on.
        tensors: The file.
        counters: Its header.
        batches: How many an epoch has, if that is known.

    Raises:
        ValueError: If counters do not fit each other or the training, or a tensor is missing, of
            another shape or type, or not finite.
    """
    _check_counters(training, tensors, counters, batches)
    execution.check(training.model, counters.execution)
    allowed = {f"optimiser/{player}" for player in training.optimisers}
    for name in tensors:
        group, _, rest = name.rpartition("/")
        if name == "sums" or name.startswith(("model/", "random/", "ranks/")):
            continue
        if group.rpartition("/")[0] not in allowed or not rest:
            raise ValueError(f"there should be no {name[:80]!r}")
    for player, optimiser in training.optimisers.items():
        _check_moments(optimiser, tensors, player, counters)
    for rank in range(processes(tensors)):
        for kind, state in random_states_of(tensors, training.device, rank).items():
            try:
                # On a generator of its own, to try it.
                where = training.device if kind == training.device.type else "cpu"
                torch.Generator(where).set_state(state)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"the random state cannot be: {error}") from None


def processes(tensors: TensorFile) -> int:
    """Returns how many processes trained together when a checkpoint was written.

    Raises:
        ValueError: If a name is none of theirs, or they do not follow each other.
    """
    ranks = set()
    for name in (n for n in tensors if n.startswith("ranks/")):
        _, word, what = (*name.split("/", 2), "")[:3]
        rank = int(word) if word.isdecimal() and len(word) < 9 else 0
        if name not in {of_rank(n, rank) for n in ("sums", f"random/{what[7:]}")} or not rank:
            raise ValueError(f"there should be no {name[:80]!r}")
        ranks.add(rank)
    if ranks != {*range(1, len(ranks) + 1)}:
        raise ValueError(f"there is nothing of process {len(ranks)}, but of {max(ranks)}")
    return len(ranks) + 1


def random_states_of(tensors: TensorFile, device: torch.device, rank: int = 0) -> dict[str, Tensor]:
    """Reads the random states of a process, as far as they are stored: as :func:`random_states`.

    Raises:
        ValueError: If the CPU's is missing, or one is larger than any can be.
    """
    names = {kind: of_rank(f"random/{kind}", rank) for kind in ("cpu", device.type, DECISIONS)}
    if names["cpu"] not in tensors:
        raise ValueError(f"there is no {names['cpu']!r}")
    names = {kind: name for kind, name in names.items() if name in tensors}
    if any(tensors.stored[name].shape.numel() > RANDOM for name in names.values()):
        raise ValueError("no random state is so large")
    return {kind: tensors[name] for kind, name in names.items()}


def sums_of(tensors: TensorFile, ranks: Ranks) -> Tensor | None:
    """Reads the sums of terms that a process goes on with.

    Those that it had; where the number of processes is another, the first has those of all.
    """
    if "sums" not in tensors:
        return None
    stored = [tensors[of_rank("sums", rank)] for rank in range(processes(tensors))]
    if len(stored) == ranks.size:
        return stored[ranks.part.rank]
    total = torch.stack(stored).sum(0)
    return total if ranks.main else torch.zeros_like(total)


def _check_counters(
    training: Training, tensors: TensorFile, counters: Counters, batches: int | None
) -> None:
    if batches is not None and counters.batch >= batches:
        raise ValueError(f"batch {counters.batch:,} of an epoch of {batches:,}")
    # Every batch of an epoch is full but the last, after which the counters are at 0 again.
    if counters.rows != counters.batch * training.config.batch_size:
        raise ValueError(f"{counters.rows:,} rows in {counters.batch:,} batches")
    for rank in range(processes(tensors)):
        name = of_rank("sums", rank)
        sums, first = tensors.stored.get(name), tensors.stored.get("sums")
        if (sums is None) != (counters.batch == 0):
            raise ValueError(f"sums of terms do not go with batch {counters.batch:,}")
        if sums is None or first is None:
            continue
        if len(sums.shape) != 1 or sums.dtype not in FLOATS or sums.shape != first.shape:
            raise ValueError(f"sums of terms have the shape {_shape(sums)}")
        if not finite(tensors, name):
            raise ValueError("sums of terms are not finite")


def _check_moments(
    optimiser: torch.optim.Optimizer, tensors: TensorFile, player: str, counters: Counters
) -> None:
    """Checks Adam's count and moments of each parameter; one that is not in use has none."""
    prefix = f"optimiser/{player}/"
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    found: dict[int, set[str]] = {}
    for name in (n for n in tensors if n.startswith(prefix)):
        word, _, key = name.removeprefix(prefix).partition("/")
        number = int(word) if word.isdecimal() and len(word) < 9 else -1
        if not 0 <= number < len(parameters) or key not in {"step", *MOMENTS}:
            raise ValueError(f"there should be no {name[:80]!r}")
        found.setdefault(number, set()).add(key)
        stored = tensors.stored[name]
        dtype, shape = parameters[number].dtype, tuple(parameters[number].shape)
        if key == "step":
            dtype, shape = stored.dtype if stored.dtype in FLOATS else dtype, ()
        if stored.shape != shape or stored.dtype != dtype:
            raise ValueError(f"{name!r} is {stored.dtype} {_shape(stored)}, not {dtype} {shape}")
        if not finite(tensors, name):
            raise ValueError(f"{name!r} is not finite")
        if key != "exp_avg" and any(bool((block < 0).any()) for block in tensors.blocks(name)):
            raise ValueError(f"{name!r} is below 0")
    for number, keys in found.items():
        if lost := {"step", *MOMENTS} - keys:
            raise ValueError(f"there is no '{prefix}{number}/{min(lost)}'")
    if not found and (counters.epoch or counters.batch):
        raise ValueError(f"there are no moments of {player!r}")


def moments(tensors: TensorFile, player: str, device: torch.device) -> dict[int, dict[str, Tensor]]:
    """Reads a player's state of Adam, by the number of its parameter.

    Moments are read to the device, where the optimiser keeps them as they are; counts stay here.
    """
    prefix = f"optimiser/{player}/"
    states: dict[int, dict[str, Any]] = {}
    for name in (n for n in tensors if n.startswith(prefix)):
        number, _, key = name.removeprefix(prefix).partition("/")
        where = device if tensors.stored[name].shape else "cpu"
        states.setdefault(int(number), {})[key] = tensors[name].to(where)
    return states


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Returns torch's random state on the CPU and on the device, as uint8 tensors.

    Of one of several processes, what all decide by as well.
    """
    states = {"cpu": torch.get_rng_state()}
    if (decisions := seeding.decisions()) is not None:
        states[DECISIONS] = decisions.get_state()
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Puts torch's random state back, as far as the device is of the same kind."""
    torch.set_rng_state(states["cpu"])
    decisions = seeding.decisions()
    if decisions is not None and DECISIONS in states:
        decisions.set_state(states[DECISIONS])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
