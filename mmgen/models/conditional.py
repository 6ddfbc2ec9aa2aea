"""What CVAE and CMMA share: one direction, from some modalities to some others.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, section 4.3.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from mmgen.errors import ConfigError, GenerationError, listed, nearest
from mmgen.modality import Modality
from mmgen.models.base import Batch, Model, Objective, Proposal
from mmgen.nets.posterior import Gaussian, SubsetEncoder, draw, rows
from mmgen.subsets import Subset, ordered


class Conditional(Model):
    """p(x_T|x_C) for disjoint sets of modalities: targets T and given C.

    Maximises L = Σ_{k∈T} E_q(z|x_T,x_C)[log p(x_k|z, ·)] − β KL(q(z|x_T, x_C) ‖ p(z|·)), where the
    subclass says what the decoders read beside z, and which prior z has.

    Args:
        modalities: The modalities of T and C by name; see :func:`members`.
        latent: Z, the size of z.
        fusion: Widths of the posterior's layers between concatenation and Gaussian.
        targets: T.
        given: C.
        condition: The features that :meth:`read` adds to z.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        latent: int,
        fusion: Sequence[int],
        targets: Subset,
        given: Subset,
        condition: int = 0,
    ) -> None:
        super().__init__(modalities, latent + condition, targets, given)
        self.size = latent
        self.encoder = SubsetEncoder(modalities, [self.names], latent, fusion)

    @abstractmethod
    def conditional_prior(self, x: Batch, like: Tensor) -> Gaussian:
        """Returns the prior of z given x_C, of batch shape ``(B,)``; ``like`` is ``(B, Z)``."""

    @abstractmethod
    def read(self, z: Tensor, x: Batch) -> Tensor:
        """Turns z ``(..., B, Z)`` into what the decoders read, ``(..., B, Z + condition)``."""

    def posterior(self, x: Batch) -> Gaussian:
        """Returns q(z|x_T, x_C), of batch shape ``(B,)``."""
        return rows(self.encoder({n: x[n] for n in self.names}), 0)

    def objective(self, x: Batch, beta: Tensor | float) -> Objective:
        """Returns −L and its terms for a batch."""
        q = self.posterior(x)
        z = q.rsample()
        kl = kl_divergence(q, self.conditional_prior(x, z)).mean()

        decoded = self.log_likelihoods(x, self.read(z, x))
        log_p = {n: value.mean() for n, value in decoded.items()}
        loss = beta * kl - torch.stack(list(log_p.values())).sum()
        terms = {f"reconstruction/{n}": value for n, value in log_p.items()}
        return Objective({"model": loss}, {**terms, "kl/prior": kl})

    def encodes(self, given: Iterable[str]) -> bool:
        """Tells whether exactly C is given, or both C and T."""
        return set(given) in ({*(self.given or ())}, {*self.names})

    def infer(self, given: Batch, samples: int = 1, *, temperature: float = 1.0) -> Tensor:
        """Draws z from the prior given x_C, or from q(z|x_T, x_C): ``(samples, B, ·)``."""
        if {*self.names} <= {*given}:
            q = self.posterior(given)
        else:
            x = next(iter(given.values()))
            q = self.conditional_prior(given, x.new_zeros(len(x), self.size))
        return self.read(draw(q, temperature, (samples,)), given)

    def propose(self, x: Batch, given: Iterable[str], samples: int) -> Proposal:  # noqa: ARG002
        """Draws z ~ q(z|x_T, x_C): weights p(z|x_C) / q(z|x_T, x_C)."""
        q = self.posterior(x)
        z = q.rsample((samples,))
        p = self.conditional_prior(x, z[0])
        return Proposal(self.read(z, x), p.log_prob(z) - q.log_prob(z))

    def prior(self, samples: int, like: Tensor, *, temperature: float = 1.0) -> Tensor:  # noqa: ARG002
        """Raises ``GenerationError``: something must be given."""
        raise GenerationError(f"this model generates {self.direction()}, not from nothing")

    def parts(self, x: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Raises ``GenerationError``: nothing is imputed where there is one direction."""
        raise GenerationError(f"this model generates {self.direction()}; it does not iterate")

    def revise(
        self,
        parts: Mapping[str, Tensor],  # noqa: ARG002
        samples: int = 1,  # noqa: ARG002
        *,
        temperature: float = 1.0,  # noqa: ARG002
    ) -> Tensor:
        """Raises ``GenerationError``, as :meth:`parts` does, without which there is nothing."""
        raise GenerationError(f"this model generates {self.direction()}; it does not iterate")

    def encoder_nets(self) -> Sequence[tuple[int, nn.Module]]:
        """Lists a net for each modality of T and C, and one more for each of C."""
        lists = [path for path in self.owners() if path != "decoders"]
        return [(1, net) for path in lists for net in self.get_submodule(path).children()]


def members(
    modalities: Mapping[str, Modality], targets: Sequence[str], given: Sequence[str]
) -> tuple[dict[str, Modality], Subset, Subset]:
    """Checks T and C, and returns their modalities, T and C in the experiment's order.

    Args:
        modalities: All K, by name.
        targets: T.
        given: C; all that are not targets if it is empty.

    Raises:
        ConfigError: If a name is unknown or on both sides, or a side is empty.
    """
    for key, names in (("targets", targets), ("given", given)):
        for wrong in (n for n in names if n not in modalities):
            raise ConfigError(
                f"model.{key}: no modality {wrong!r}; this experiment has "
                f"{listed(modalities)}{nearest(wrong, modalities)}"
            )
    known = tuple(modalities)
    T = ordered(known, targets)
    C = ordered(known, given or [n for n in known if n not in T])
    if both := [n for n in T if n in C]:
        raise ConfigError(f"model: {listed(both)} is both given and a target")
    if not C:
        raise ConfigError("model.targets: all modalities; leave one out, to generate them from")
    used = ordered(known, [*T, *C])
    return {n: modalities[n] for n in used}, T, C
