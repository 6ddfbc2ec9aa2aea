"""Which likelihoods a model has: all (targets | given) that it can go, or those asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmgen.brief import OneLine
from mmgen.errors import GenerationError
from mmgen.model import Model
from mmgen.run import Run
from mmgen.subsets import Subset, ordered, proper


@dataclass(frozen=True, repr=False)
class Direction(OneLine):
    """One direction: log p(x_T|x_S), for disjoint sets of modalities.

    Attributes:
        targets: T.
        given: S, not empty.
    """

    targets: Subset
    given: Subset

    def __str__(self) -> str:
        """Writes it as ``"log p(image | label)"``."""
        return log_p(self.targets, self.given)

    def both(self, names: Sequence[str]) -> Subset:
        """Returns T ∪ S in the order of ``names``."""
        return ordered(names, [*self.targets, *self.given])


def log_p(names: Sequence[str], given: Sequence[str] = ()) -> str:
    """Writes a likelihood: ``"log p(image | label, attributes)"``."""
    condition = f" | {', '.join(given)}" if given else ""
    return f"log p({', '.join(names)}{condition})"


def all_directions(model: Model) -> list[Direction]:
    """Lists a model's directions: each modality given every non-empty subset of the others.

    A model of one direction has each of its targets given its condition, and all of them together.

    Examples:
        >>> from types import SimpleNamespace
        >>> joint = SimpleNamespace(names=("a", "b", "c"), directions=None)
        >>> [str(direction) for direction in all_directions(joint)][:4]
        ['log p(a | b)', 'log p(a | c)', 'log p(a | b, c)', 'log p(b | a)']
    """
    if model.directions is not None:
        C, T = model.directions.given, model.directions.targets
        single = [Direction((n,), C) for n in T]
        return single if len(single) == 1 else [*single, Direction(T, C)]
    return [Direction((n,), given) for n in model.names for given in _subsets(model.names, (n,))]


def chosen_directions(run: Run, targets: Sequence[str], given: Sequence[str]) -> list[Direction]:
    """Lists the directions asked for.

    Args:
        run: The trained run.
        targets: T, taken together; each modality that is not given by itself if it is empty.
        given: S; every subset of the modalities that are not targets if it is empty.

    Raises:
        GenerationError: If a name is unknown or on both sides, or the model cannot go there.
    """
    model = run.model
    if not targets and not given:
        return all_directions(model)
    if given:
        wanted = run.targets(given, targets or None)
        S = ordered(tuple(run.modalities), given)
        if targets:
            return [Direction(ordered(model.names, wanted), S)]
        return [Direction((n,), S) for n in ordered(model.names, wanted)]
    if model.directions is not None:
        C = model.directions.given
        run.targets([n for n in C if n not in targets], targets)  # checks them
        return [Direction(ordered(model.names, targets), C)]
    subsets = _subsets(model.names, targets)
    if not subsets:
        raise GenerationError("all modalities are targets; leave one out, to be given")
    run.targets(subsets[-1], targets)  # checks the names
    return [Direction(ordered(model.names, targets), S) for S in subsets]


MOST = 10_000
"""Sets of given modalities: those of 13."""


def _subsets(names: Sequence[str], without: Sequence[str]) -> list[Subset]:
    """Lists the non-empty subsets of the other modalities, smaller ones first.

    Raises:
        GenerationError: If they are too many.
    """
    rest = tuple(n for n in names if n not in without)
    if 1 << len(rest) > MOST:
        raise GenerationError(
            f"{len(rest)} modalities that can be given have 2^{len(rest)} − 1 subsets, too many to "
            "evaluate all: say which with --given"
        )
    return [*proper(rest), rest] if rest else []
