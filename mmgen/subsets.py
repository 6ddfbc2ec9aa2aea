"""The subsets of K modalities, their names, and how many nets they need.

A subset is a tuple of modality names in the experiment's order; its name joins them: ``"a+b"``.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

from mmgen.errors import ConfigError, listed, nearest

Subset = tuple[str, ...]

MOST_NETS = 50_000
"""Of all encoders together: those of 12 modalities. Their number doubles with each one more."""


def name(subset: Iterable[str]) -> str:
    """Returns the name of a subset: ``"label+photo"``."""
    return "+".join(subset)


def ordered(names: Sequence[str], subset: Iterable[str]) -> Subset:
    """Returns the subset in the order of ``names``."""
    members = set(subset)
    return tuple(n for n in names if n in members)


def proper(names: Sequence[str]) -> list[Subset]:
    """Returns the 2^K − 2 non-empty proper subsets, smaller ones first.

    Examples:
        >>> [name(s) for s in proper(["a", "b", "c"])]
        ['a', 'b', 'c', 'a+b', 'a+c', 'b+c']
    """
    return [s for size in range(1, len(names)) for s in combinations(names, size)]


def chosen(names: Sequence[str], choice: str | Sequence[str]) -> list[Subset]:
    """Returns the proper subsets that get an encoder beside the joint one.

    Args:
        names: The K modalities.
        choice: ``"none"``, ``"single"``, ``"all"``, or names such as ``["label", "label+photo"]``.

    Raises:
        ConfigError: If a subset names an unknown modality, or is the full one.
    """
    if choice == "none":
        return []
    if choice == "single":
        return [(n,) for n in names]
    if choice == "all":
        check_buildable(len(names))
        return proper(names)
    if isinstance(choice, str):
        choice = [choice]
    wanted = {_read(names, text) for text in choice}
    return sorted(wanted, key=lambda s: (len(s), [names.index(n) for n in s]))  # as in proper


def _read(names: Sequence[str], text: str) -> Subset:
    members = [member.strip() for member in text.split("+")]
    for member in members:
        if member not in names:
            raise ConfigError(
                f"model.subsets: {text!r} names the modality {member!r}; "
                f"this experiment has {listed(names)}{nearest(member, names)}"
            )
    subset = ordered(names, members)
    if len(subset) == len(names):
        raise ConfigError(
            f"model.subsets: {text!r} is the full subset; the joint encoder is always built"
        )
    return subset


def check_buildable(modalities: int) -> None:
    """Checks that encoders of all subsets of K modalities can be built at all.

    Raises:
        ConfigError: If they are too many nets.
    """
    if modalities > 64 or subset_encoder_nets(modalities) > MOST_NETS:
        K = modalities
        raise ConfigError(
            f'model.subsets = "all": {K} modalities have 2^{K} − 2 proper subsets, and the '
            f"encoders of all are 2^{K - 1} · {K} nets; {MOST_NETS:,} are the most."
            '\n  Try model.subsets="single", a list of some, or model.kind=hierarchical'
        )


def subset_encoder_nets(modalities: int) -> int:
    """Returns 2^(K−1)·K, the modality nets of all 2^K − 1 subset encoders.

    Each of the K modalities is in half of the 2^K subsets.

    Examples:
        >>> [subset_encoder_nets(K) for K in (2, 3, 4, 5, 6)]
        [4, 12, 32, 80, 192]
    """
    return (1 << (modalities - 1)) * modalities


def hierarchical_nets(modalities: int, layers: int) -> int:
    """Returns K + L − 1, the nets of a hierarchical posterior with L stochastic layers."""
    return modalities + layers - 1
