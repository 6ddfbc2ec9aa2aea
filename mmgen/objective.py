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
        kept = torch.where(self.present, self.value, 0)
        return kept.sum() / mask.sum().clamp_min(1)


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
        """Returns the mean of every term by name, scalars in nats."""
        return {term.name: term.mean for term in self.terms}

    def losses(
        self, means: Mapping[str, Tensor] | None = None, beta: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """Returns the loss of each parameter group: Σ emphasis · weight · mean, β where it applies.

        Args:
            means: See :meth:`means`, if they are at hand.
            beta: β.
        """
        groups = dict.fromkeys(group for term in self.terms for group in term.trains)
        means = self.means() if means is None else means
        each = [(t, t.emphasis * t.weight) for t in self.terms]
        return {g: _sum([(t, w) for t, w in each if g in t.trains], means, beta) for g in groups}

    def bound(
        self, means: Mapping[str, Tensor] | None = None, beta: Tensor | float = 1.0
    ) -> Tensor:
        """Returns the negative bound on the evidence: what a model is chosen by, in nats.

        If no term is part of one, the loss of the group :data:`MODEL`.
        """
        means = self.means() if means is None else means
        bound = [term for term in self.terms if term.bound]
        # A model whose objective is no bound on the evidence is chosen by its own loss.
        chosen = bound or [term for term in self.terms if MODEL in term.trains]
        return _sum([(term, term.weight) for term in chosen], means, beta)

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
    terms: Iterable[tuple[Term, float]], means: Mapping[str, Tensor], beta: Tensor | float
) -> Tensor:
    """Adds weighted terms up, those of one weight first: β once, not for each of them."""
    alike: dict[tuple[float, bool], list[Tensor]] = {}
    for term, weight in terms:
        alike.setdefault((weight, term.warmed_up), []).append(means[term.name])
    total: Tensor | None = None
    for (weight, warmed_up), values in alike.items():
        value = values[0] if len(values) == 1 else torch.stack(values).sum()
        value = beta * (weight * value if weight != 1 else value) if warmed_up else weight * value
        total = value if total is None else total + value
    assert total is not None
    return total
