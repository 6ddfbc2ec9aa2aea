"""What a step minimises: terms that keep their value per row, their weight and their meaning."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.subsets import Subset, name

MODEL = "model"
"""The parameter group that every model has."""


@dataclass(frozen=True, eq=False, repr=False)
class Term(OneLine):
    """One term of an objective.

    Attributes:
        name: ``reconstruction/photo``, ``kl/prior``: unique in the objective.
        value: Of each row, ``(B,)``.
        weight: What it is multiplied by in the loss, which is minimised: −1 of a log-likelihood.
        warmed_up: Whether β, which rises from 0 to 1 during the warm-up, multiplies it as well.
        about: The modalities that it is about; empty if it is about none in particular.
        trains: The groups of parameters (:meth:`mmgen.model.Model.parameter_groups`) whose loss it
            is part of.
        bound: Whether it is part of the bound on the evidence that a model is chosen by.
        present: The rows that have it, a mask ``(B,)``; all without one.
        title: What it is, in words for a reader: ``"KL to q(z | label)"``; empty: its name.
        unit: Of the value: nats, or ``share`` of what is only measured, from 0 to 1.
        emphasis: What a loss multiplies it by beside its weight. The bound does not: a training may
            look more at one term than at another, and is still measured by what is true.
    """

    name: str
    value: Tensor
    weight: float = 1.0
    warmed_up: bool = False
    about: Subset = ()
    trains: tuple[str, ...] = (MODEL,)
    bound: bool = True
    present: Tensor | None = None
    title: str = ""
    unit: Literal["nats", "share"] = "nats"
    emphasis: float = 1.0

    @property
    def likelihood_of(self) -> str | None:
        """The modality whose log-likelihood it is: the one it is about, if it is maximised."""
        return self.about[0] if len(self.about) == 1 and self.weight < 0 else None

    @property
    def mean(self) -> Tensor:
        """The mean over the rows that have it, a scalar; 0 if none has."""
        if self.present is None:
            return self.value.mean()
        mask = self.present.to(self.value.dtype)
        return self._kept.sum() / mask.sum().clamp_min(1)

    @property
    def part(self) -> Tensor:
        """What it adds to the mean of the rows' sums of terms: nothing of rows that lack it."""
        return self._kept.mean()

    @property
    def share(self) -> Tensor | None:
        """The share of the rows that have it, a scalar; ``None`` without a mask."""
        return None if self.present is None else self.present.to(self.value.dtype).mean()

    @property
    def _kept(self) -> Tensor:
        return self.value if self.present is None else torch.where(self.present, self.value, 0)


def reconstruction(
    modality: str, log_likelihood: Tensor, present: Tensor | None = None, weight: float = -1.0
) -> Term:
    """Returns the term log p(x_k | z) of one modality, ``(B,)``."""
    title = f"log p({modality} | z)"
    return Term(
        f"reconstruction/{modality}",
        log_likelihood,
        weight,
        about=(modality,),
        present=present,
        title=title,
    )


def prior_kl(divergence: Tensor, title: str, layer: str = "prior", weight: float = 1.0) -> Term:
    """Returns the term KL(q(z | x) ‖ p(z)), ``(B,)``, which the warm-up raises."""
    return Term(f"kl/{layer}", divergence, weight, warmed_up=True, title=title)


def subset_kl(subset: Subset, divergence: Tensor, title: str, weight: float) -> Term:
    """Returns the term KL(q(z | x) ‖ q(z | x_S)) of a subset of modalities, ``(B,)``."""
    return Term(f"subset/{name(subset)}", divergence, weight, about=subset, title=title)


class Objective(Sequence[Term]):
    """The terms of a batch; the loss of each parameter group is their weighted sum.

    A loss is a mean over rows: each row's is the weighted sum of the terms that it has, so that of
    a row that lacks some modalities it is the bound on what it has, and counts as one row.

    Raises:
        ValueError: If two terms have one name.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        self.terms = tuple(terms)
        names = [term.name for term in self.terms]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"two terms of the objective are called {twice[0]!r}")

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.terms[index]

    def __len__(self) -> int:
        return len(self.terms)

    def __iter__(self) -> Iterator[Term]:
        return iter(self.terms)

    def means(self) -> dict[str, Tensor]:
        """Returns the mean of every term over the rows that have it, scalars in nats."""
        return {term.name: term.mean for term in self.terms}

    def parts(self) -> dict[str, Tensor]:
        """Returns what every term adds to the mean over all rows, scalars in nats."""
        return {term.name: term.part for term in self.terms}

    def losses(
        self, parts: Mapping[str, Tensor] | None = None, beta: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """Returns the loss of each parameter group: Σ emphasis · weight · part, β where it applies.

        Args:
            parts: See :meth:`parts`, if they are at hand.
            beta: β.
        """
        groups = dict.fromkeys(group for term in self.terms for group in term.trains)
        parts = self.parts() if parts is None else parts
        each = [(t, t.emphasis * t.weight) for t in self.terms]
        return {g: _sum([(t, w) for t, w in each if g in t.trains], parts, beta) for g in groups}

    def bound(
        self, parts: Mapping[str, Tensor] | None = None, beta: Tensor | float = 1.0
    ) -> Tensor:
        """Returns the negative bound on the evidence: what a model is chosen by, in nats.

        If no term is part of one, the loss of the group :data:`MODEL`.

        Args:
            parts: See :meth:`parts`, if they are at hand.
            beta: β.
        """
        parts = self.parts() if parts is None else parts
        bound = [term for term in self.terms if term.bound]
        # A model whose objective is no bound on the evidence is chosen by its own loss.
        chosen = bound or [term for term in self.terms if MODEL in term.trains]
        return _sum([(term, term.weight) for term in chosen], parts, beta)

    def emphasised(self, weights: Mapping[str, float]) -> "Objective":
        """Returns the same, with the log-likelihoods of some modalities emphasised in the losses.

        Log-likelihoods of a modality are the terms about it alone that are maximised.

        Args:
            weights: By modality.
        """
        return Objective(
            replace(term, emphasis=weights.get(term.likelihood_of or "", 1.0))
            for term in self.terms
        )

    def __repr__(self) -> str:
        return f"Objective({', '.join(term.name for term in self.terms)})"


def _sum(
    terms: Iterable[tuple[Term, float]], parts: Mapping[str, Tensor], beta: Tensor | float
) -> Tensor:
    """Adds weighted terms up, those of one weight first: β once, not for each of them."""
    alike: dict[tuple[float, bool], list[Tensor]] = {}
    for term, weight in terms:
        alike.setdefault((weight, term.warmed_up), []).append(parts[term.name])
    total: Tensor | None = None
    for (weight, warmed_up), values in alike.items():
        value = values[0] if len(values) == 1 else torch.stack(values).sum()
        value = beta * (weight * value if weight != 1 else value) if warmed_up else weight * value
        total = value if total is None else total + value
    assert total is not None
    return total
