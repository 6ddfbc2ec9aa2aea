"""What every model is: modalities' decoders around a latent z, and an objective in nats."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.distributions import Distribution

from mmgen.brief import OneLine
from mmgen.errors import listed
from mmgen.modality import Modality
from mmgen.nets.posterior import SubsetEncoder
from mmgen.subsets import Subset, ordered

Batch = Mapping[str, Tensor]
"""Observations by modality name, each ``(B, *shape)``."""


@dataclass(frozen=True, repr=False)
class Objective(OneLine):
    """What one step minimises, and what it is made of.

    Attributes:
        losses: A scalar a player (see :meth:`Model.players`), the batch mean.
        terms: Named scalars in nats, batch means: ``reconstruction/photo``, ``kl/prior``, ...
    """

    losses: dict[str, Tensor]
    terms: dict[str, Tensor]


@dataclass(frozen=True, repr=False)
class Proposal(OneLine):
    """Draws of z with their importance weights.

    Attributes:
        z: What the decoders read, ``(samples, B, Z)``.
        log_weight: log p(z) − log q(z) of all latents drawn, ``(samples, B)``, in nats; p is the
            prior, conditional if the model's is.
    """

    z: Tensor
    log_weight: Tensor


class Model(nn.Module, ABC):
    """A latent z, how its posterior and prior are built, and the objective.

    Modalities are independent given z: p(x_1..x_K | z) = Π_k p(x_k | z). A model is given its
    modalities and builds every net itself.

    Args:
        modalities: The K ≥ 2 modalities by name, in the experiment's order.
        latent: Z, the size of the z that decoders read.
        targets: The modalities that it generates; all of them by default.
        given: The modalities that it generates them from; any by default.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        latent: int,
        targets: Subset | None = None,
        given: Subset | None = None,
    ) -> None:
        super().__init__()
        self.modalities = dict(modalities)
        self.names: Subset = tuple(modalities)
        self.latent = latent
        self.targets = self.names if targets is None else targets
        self.given = given
        self.decoders = nn.ModuleList(modalities[n].decoder(latent) for n in self.targets)

    def can(self, given: Iterable[str], targets: Iterable[str]) -> bool:
        """Tells whether it can generate the targets from what is given, in this direction."""
        if self.given is None:
            return True
        known = ({*self.given}, {*self.given, *self.targets})
        return set(given) in known and {*targets} <= {*self.targets}

    def direction(self) -> str:
        """Says what it generates from what: ``"label from image"``."""
        if self.given is None:
            return f"any of {listed(self.names)} from any"
        return f"{listed(self.targets)} from {listed(self.given)}"

    def owners(self) -> dict[str, Subset]:
        """Returns whose nets each list of nets holds: ``{"decoders": ("image", "label")}``."""
        lists = {"decoders": self.targets, "encoders": self.names, "conditions": self.given or ()}
        held = {n: owners for n, owners in lists.items() if n in dict(self.named_children())}
        parts = dict(self.named_modules()).items()
        return held | {f"{n}.encoders": p.names for n, p in parts if isinstance(p, SubsetEncoder)}

    def decode(self, z: Tensor, targets: Iterable[str] | None = None) -> dict[str, Distribution]:
        """Returns p(x_k | z) for z ``(B, Z)``: a distribution of batch shape ``(B,)`` each."""
        wanted = self.targets if targets is None else ordered(self.targets, targets)
        return {n: self.decoders[self.targets.index(n)](z) for n in wanted}

    def log_likelihoods(self, x: Batch, z: Tensor) -> dict[str, Tensor]:
        """Returns log p(x_k | z) of each modality, ``(B,)``, in nats."""
        return {n: p.log_prob(x[n]) for n, p in self.decode(z).items()}

    def players(self) -> dict[str, list[nn.Parameter]]:
        """Returns the groups of parameters that minimise a loss of their own, with an optimiser."""
        return {"model": list(self.parameters())}

    @abstractmethod
    def objective(self, x: Batch, beta: Tensor | float) -> Objective:
        """Returns the losses and terms of a batch; ``beta`` weighs the KL to the prior."""

    @abstractmethod
    def prior(self, samples: int, like: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Draws z from p(z): ``(samples, Z)``, of the dtype and device of ``like``."""

    @abstractmethod
    def encodes(self, given: Iterable[str]) -> bool:
        """Tells whether there is a trained encoder for exactly these modalities."""

    @abstractmethod
    def infer(self, given: Batch, samples: int = 1, *, temperature: float = 1.0) -> Tensor:
        """Draws z given exactly the modalities of a subset that has an encoder.

        Args:
            given: Observations ``(B, *shape)`` of such a subset.
            samples: How many z a row.
            temperature: See :func:`mmgen.nets.posterior.draw`; 0 takes the posterior's mean.

        Returns:
            z ``(samples, B, Z)``.
        """

    @abstractmethod
    def parts(self, x: Batch) -> dict[str, Tensor]:
        """Encodes modalities each by itself: what each adds to the joint posterior, ``(B, ·)``."""

    @abstractmethod
    def revise(
        self, parts: Mapping[str, Tensor], samples: int = 1, *, temperature: float = 1.0
    ) -> Tensor:
        """Draws z given the :meth:`parts` of all K modalities, some of them imputed.

        One step of iterative sampling (eq. 6): ``(samples, B, Z)``.
        """

    @abstractmethod
    def propose(self, x: Batch, given: Iterable[str], samples: int) -> Proposal:
        """Draws z to estimate likelihoods with, from the posterior given a subset.

        From q(z|x_S) if S has an encoder; else from q(z|x), for which ``x`` needs all modalities.

        Args:
            x: Observations ``(B, *shape)``.
            given: The subset S.
            samples: How many z a row.
        """

    @abstractmethod
    def encoder_nets(self) -> Sequence[tuple[int, nn.Module]]:
        """Lists the nets of posterior, prior and condition: how many copies each holds, and it."""
