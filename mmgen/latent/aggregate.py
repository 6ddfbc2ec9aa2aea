"""q(z): what z is drawn from, fitted to where the posteriors of some training rows are.

Given nothing, these are all rows; given a class, those of the class (:mod:`mmgen.latent.alike`).

A prior N(0, I) has regions where no posterior is, and what is decoded from there is like no data.
What is fitted serves to draw z. It is not p(z): the bound that a model was trained by, and
likelihoods, are those of its prior.

References:
    P. Ghosh, M. S. M. Sajjadi, A. Vergari, M. Black, B. Schölkopf, "From Variational to
    Deterministic Autoencoders", ICLR 2020, section 4 (ex-post density estimation); B. Dai,
    D. Wipf, "Diagnosing and Enhancing VAE Models", ICLR 2019; M. D. Hoffman, M. J. Johnson,
    "ELBO surgery", 2016 (the aggregate posterior).
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmgen.latent.base import Latent
from mmgen.latent.correlated import FullGaussian
from mmgen.latent.em import best_mixture
from mmgen.latent.gaussian import full_precision
from mmgen.latent.mixture import Mixture

INFORMED = 0.2
"""A dimension whose posterior means vary by more over the rows than this is active: it knows about
0.1 nats of a row. Active units are those above 0.01 else (Burda et al., "Importance Weighted
Autoencoders", ICLR 2016, section 5.1), but dimensions that know next to nothing cost components
that others need: of MNIST, picture and label from nothing agreed in 77 % with 62 dimensions above
0.01, in 84 % with 19 above 0.1, and in 86 % with 9 above 0.2 (posteriors of rows: 87 %)."""

GATHERED = 1 << 24
"""Numbers of matrices that are gathered at a time, one matrix for each z."""

AT_ONCE = {"cpu": 1 << 19}
"""Numbers that z are standardised to at a time: on a CPU no more than its cache holds. Of 8,000 z
of 35 dimensions by 185 components, 64 at a time took 31 ms and 2,000 at a time 112 ms (one run on
two threads of an AMD EPYC)."""

SHIFTED = 0.01
"""So is one whose draws are farther from N(0, 1) than this, in nats, as a Gaussian is that has
their mean and variance."""


class Aggregate(Latent):
    """A mixture on some dimensions of z, N(0, 1) on the others, which are independent of it.

    Args:
        mixture: Of batch shape ``()`` and event shape ``(A,)``.
        active: The numbers of those dimensions in z flattened, ``(A,)``.
        event_shape: Of z: ``(Z,)``, or ``(L, Z)``.
        temperature: τ of the other dimensions.
    """

    def __init__(
        self,
        mixture: Mixture,
        active: Tensor,
        event_shape: Sequence[int],
        temperature: float = 1.0,
    ) -> None:
        self.mixture, self.active, self.temperature = mixture, active, temperature
        super().__init__((), event_shape, mixture.symbol)

    @cached_property
    def _factors(self) -> Tensor:
        components = self.mixture.components
        assert isinstance(components, FullGaussian)
        return components.factor

    @property
    def mean(self) -> Tensor:
        """Of shape ``event``; there need be no posterior near it."""
        mean = self.mixture.mean
        flat = mean.new_zeros(self.event_shape.numel()).index_copy(0, self.active, mean)
        return flat.reshape(self.event_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, *event)``."""
        drawn = self.mixture.rsample(sample_shape)
        flat = drawn.new_empty(*drawn.shape[:-1], self.event_shape.numel()).normal_()
        z = (self.temperature * flat).index_copy(-1, self.active, drawn)
        return z.reshape(*sample_shape, *self.event_shape)

    def of_noise(self, place: Tensor, noise: Tensor) -> Tensor:
        """Returns the z ``(..., *event)`` that noise leads to.

        Args:
            place: Uniform on [0, 1], by which the component is chosen, ``(...)``.
            noise: u ~ N(0, I), ``(..., *event)``.
        """
        components, log_weights = self.mixture.components, self.mixture.log_weights
        assert log_weights is not None
        ends = log_weights.exp().cumsum(0)[:-1]
        chosen = (place.unsqueeze(-1) > ends).sum(-1).flatten()
        flat = noise.reshape(-1, self.event_shape.numel())
        means, factors = components.loc, self._factors
        at_once = max(1, GATHERED // max(1, factors[0].numel()))
        drawn = [
            means[c] + (factors[c] @ u.unsqueeze(-1)).squeeze(-1)
            for c, u in zip(chosen.split(at_once), flat[:, self.active].split(at_once), strict=True)
        ]
        z = (self.temperature * flat).index_copy(1, self.active, torch.cat(drawn))
        return z.reshape(noise.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log q(z) of z ``(..., *event)``, in nats."""
        flat = value.reshape(-1, self.event_shape.numel())
        rest = torch.ones_like(flat[:1]).index_fill(1, self.active, 0)
        log_constant = math.log(self.temperature * math.sqrt(2 * math.pi))
        each = -(flat / self.temperature).square() / 2 - log_constant
        log_p = self._log_mixture(flat.index_select(1, self.active)) + (rest * each).sum(1)
        return log_p.reshape(value.shape[: value.dim() - len(self.event_shape)])

    def _log_mixture(self, x: Tensor) -> Tensor:
        """Returns the log density of the active dimensions ``(n, A)``: by one product for all."""
        matrix, shift, constants = self._standardising
        at_once = max(1, AT_ONCE.get(x.device.type, GATHERED) // max(1, matrix.shape[1]))
        with full_precision(x.device):
            parts = [
                torch.addmm(shift, part, matrix, beta=-1).unflatten(1, (len(constants), x.shape[1]))
                for part in x.split(at_once)
            ]
        squared = torch.cat([torch.linalg.vector_norm(u, dim=-1).square() for u in parts])
        log_p: Tensor = (constants - squared / 2).logsumexp(1)
        return log_p

    @cached_property
    def _standardising(self) -> tuple[Tensor, Tensor, Tensor]:
        """What standardises by every component: ``(A, C A)`` and ``(C A,)``; and log constants."""
        components, log_weights = self.mixture.components, self.mixture.log_weights
        assert isinstance(components, FullGaussian)
        assert log_weights is not None
        size = components.loc.shape[-1]
        with full_precision(components.loc.device):
            each = components.coupling / components.innovation.unsqueeze(-2)  # (C, A, A)
            shift = (components.loc.unsqueeze(-2) @ each).flatten()
        log_volume = components.innovation.log().sum(-1) + size * math.log(math.sqrt(2 * math.pi))
        return each.movedim(0, 1).flatten(1), shift, log_weights - log_volume

    def tempered(self, temperature: float) -> Self:
        """Returns the mixture of components tempered, and the other dimensions tempered."""
        both = temperature * self.temperature
        mixture = self.mixture.tempered(temperature)
        return type(self)(mixture, self.active, self.event_shape, both)


class FittedMixture(nn.Module):
    """Holds an :class:`Aggregate` on the device of the model that it is a part of.

    Its tensors are no weights of the model: they are stored beside them, under names of their own.

    Args:
        event_shape: Of z.
        tensors: By the names of :data:`TENSORS`.
    """

    TENSORS = ("active", "log_weights", "means", "innovations", "couplings")
    """Dimensions ``(A,)``; of C components log weights ``(C,)``, means ``(C, A)``, and what
    :class:`mmgen.latent.correlated.FullGaussian` is made of, ``(C, A)`` and ``(C, A, A)``."""

    def __init__(self, event_shape: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        for name in self.TENSORS:
            self.register_buffer(name, tensors[name], persistent=False)
        self._made: Aggregate | None = None

    def forward(self) -> Aggregate:
        """Returns the distribution, the same each time: it keeps what it computes."""
        each = self.tensors()
        if self._made is None or self._made.active is not each["active"]:  # it was moved
            components = FullGaussian(each["means"], each["innovations"], each["couplings"])
            mixture = Mixture(components, "q(z)", log_weights=each["log_weights"])
            self._made = Aggregate(mixture, each["active"], self.event_shape)
        return self._made

    def tensors(self) -> dict[str, Tensor]:
        """Returns what it is made of, by name."""
        return {name: self.get_buffer(name) for name in self.TENSORS}

    COUNTS = (1, 10, 20, 40)
    """How many Gaussians are tried, of all rows."""

    @classmethod
    @torch.no_grad()
    def of_draws(
        cls,
        z: Tensor,
        means: Tensor,
        counts: Sequence[int] = COUNTS,
        held_out: int | None = None,
    ) -> Self:
        """Fits it; torch's random state says where the search for components starts.

        Args:
            z: One draw of q(z | x_n) for each of some rows in random order, ``(N, *event)``.
            means: The mean of each q(z | x_n), ``(N, *event)``.
            counts: How many components are tried.
            held_out: See :func:`mmgen.latent.em.best_mixture`.
        """
        event = z.shape[1:]
        z, means = z.flatten(1), means.flatten(1)
        variance = z.var(0, correction=0)
        shift = (variance + z.mean(0).square() - 1 - variance.log()) / 2
        informed = means.var(0, correction=0) > INFORMED
        (active,) = (informed | (shift > SHIFTED)).nonzero(as_tuple=True)
        mixture = best_mixture(z[:, active], counts, held_out=held_out)
        assert mixture.log_weights is not None
        components = mixture.components
        assert isinstance(components, FullGaussian)
        each = (components.loc, components.innovation, components.coupling)
        found = (active, mixture.log_weights, *each)
        return cls(event, dict(zip(cls.TENSORS, found, strict=True)))

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[float, Self]]) -> Self:
        """Makes one mixture of several; a dimension is active that is in one of them.

        Args:
            parts: Each with its weight, which sum to one.
        """
        (_, first), every = parts[0], [part.tensors() for _, part in parts]
        active = torch.cat([own["active"] for own in every]).unique()
        found: dict[str, list[Tensor]] = {name: [] for name in cls.TENSORS}
        for (weight, _), own in zip(parts, every, strict=True):
            at, means = torch.searchsorted(active, own["active"]), own["means"]
            shape = (len(means), len(active))
            one = torch.eye(len(active), dtype=means.dtype, device=means.device)
            coupling = one.repeat(len(means), 1, 1)
            coupling[:, at.unsqueeze(1), at] = own["couplings"]
            found["log_weights"].append(own["log_weights"] + math.log(weight))
            found["means"].append(means.new_zeros(shape).index_copy(1, at, means))
            innovations = own["innovations"]
            found["innovations"].append(means.new_ones(shape).index_copy(1, at, innovations))
            found["couplings"].append(coupling)
        found["active"] = [active]
        return cls(first.event_shape, {name: torch.cat(each) for name, each in found.items()})

    @classmethod
    def stored(cls, event_shape: Sequence[int], tensors: Mapping[str, Tensor]) -> Self:
        """Makes it of tensors that anyone may have written.

        Raises:
            ValueError: If they are no such distribution of z.
        """
        active, log_weights, means, innovations, couplings = (tensors[n] for n in cls.TENSORS)
        size, count = torch.Size(event_shape).numel(), len(means) if means.dim() else 0
        of_each = (count, *active.shape)
        shapes = {
            "active": len(active.shape) == 1 and active.dtype == torch.int64,
            "log_weights": log_weights.shape == (count,) and count > 0,
            "means": means.shape == of_each,
            "innovations": innovations.shape == of_each,
            "couplings": couplings.shape == (*of_each, *active.shape),
        }
        for name, fits in shapes.items():
            values = tensors[name]
            if not fits or not (name == "active" or values.is_floating_point()):
                raise ValueError(f"{name!r} has the shape {tuple(values.shape)}, {values.dtype}")
            if not values.isfinite().all():
                raise ValueError(f"{name!r} is not finite")
        inside = bool(((active >= 0) & (active < size)).all())
        if not inside or bool((active.diff() <= 0).any()):
            raise ValueError(f"'active' are no dimensions of {size}")
        if bool((innovations <= 0).any()):
            raise ValueError("'innovations' are not above 0")
        if abs(float(log_weights.logsumexp(0))) > 1e-3:
            raise ValueError("'log_weights' do not sum to one")
        one = torch.eye(len(active), dtype=couplings.dtype, device=couplings.device)
        if not torch.equal(couplings.triu(), one.expand_as(couplings)):
            raise ValueError("'couplings' are not lower unitriangular")
        return cls(event_shape, tensors)
