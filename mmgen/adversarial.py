"""A critic beside any model: the decoder of one modality is trained to fool it as well.

References:
    I. Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014; A. B. L. Larsen, S. K.
    Sønderby, H. Larochelle, O. Winther, "Autoencoding beyond pixels using a learned similarity
    metric", ICML 2016; M. Suzuki, K. Nakayama, Y. Matsuo, IPSJ Journal 59(3), 2018, section 4.6.3.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from mmgen.batch import Batch
from mmgen.errors import ConfigError, listed, nearest
from mmgen.modality import Modality
from mmgen.model import Model, ParameterGroup
from mmgen.nets.dry_run import features
from mmgen.objective import Objective, Term
from mmgen.subsets import Subset

GENERATOR, CRITIC = "generator", "critic"
"""The parameter groups: of the decoder that is trained against the critic, and of the critic."""

ACCURACY = "adversarial/accuracy"
"""The term that says how often the critic is right."""

_GAME = (
    ((GENERATOR,), "−log p(x | z), for the decoder beside the critic"),
    ((GENERATOR,), "softplus(−D(G)): how well fakes are told, for the decoder"),
    ((CRITIC,), "the critic's loss"),
    ((), "how often the critic is right"),
)
"""Of each term of the game: which groups it trains, and what it is."""


class Adversarial(Model):
    """A model, and a critic D that tells observations of one modality from what its decoder makes.

    Fakes G are the means of p(x | z) at the z that the objective itself draws, the reconstructions,
    and at as many z drawn without a look at x. Three groups minimise a loss each:

    - the decoder: −λ E[log p(x | z)] + E[softplus(−D(G))], which does not saturate;
    - the critic: E[softplus(−D(x))] + E[softplus(D(G))];
    - all else: the model's own objective, by which it is chosen.

    This class comes before the model's own among the bases of :func:`with_critic`.
    """

    def __init__(self, modalities: Mapping[str, Modality], settings: Any) -> None:
        super().__init__(modalities, settings)
        game = settings.adversarial
        if game.modality not in self.targets:
            raise ConfigError(
                f"model.adversarial.modality: the model generates {listed(self.targets)}, not "
                f"{game.modality!r}{nearest(game.modality, self.targets)}"
            )
        self.game, self.picture = game, game.modality
        shape = self.modalities[self.picture].shape
        self.critic = critic(shape, game.channels, game.widths)  # last: others' weights stay
        self._reconstructions: list[Tensor] | None = None

    def objective(self, x: Batch) -> Objective:
        """Returns the model's own terms, and those of the game."""
        with self._collected() as fakes:
            own = super().objective(x)  # type: ignore[safe-super]  # of the model beside
        fakes.append(self._imagined(x))
        seen = torch.cat([x[self.picture], *fakes])
        logits = self.critic(seen).to(seen.dtype).split([x.rows, *map(len, fakes)])
        real, fake = logits[0], logits[1:]

        def per_row(values: Iterable[Tensor]) -> Tensor:
            # A model may draw several z per row, and so reconstruct each several times.
            return torch.stack([v.view(-1, x.rows).mean(0) for v in values]).mean(0)

        # Where log p(x_k | z) is no term by itself, all: of others the decoder has no gradient.
        terms = [t for t in own if t.about == (self.picture,) and t.weight < 0]
        terms = terms or [t for t in own if t.trains]
        log_p = torch.stack([t.weight * t.value for t in terms]).sum(0)
        wrong = per_row(F.softplus(d) for d in fake)
        fooled = per_row(F.softplus(-d) for d in fake)
        right = ((real > 0).to(real.dtype) + per_row((d < 0).to(d.dtype) for d in fake)) / 2
        game = (
            Term("likelihood", log_p, self.game.likelihood_weight),
            Term("generator", fooled),
            Term("critic", F.softplus(-real) + wrong),
            Term("accuracy", right, 0.0, unit="share"),
        )
        about: dict[str, Any] = {
            "about": (self.picture,),
            "bound": False,
            "present": (x.present or {}).get(self.picture),
        }
        return Objective(
            [*own]
            + [
                replace(t, name=f"adversarial/{t.name}", trains=trains, title=title, **about)
                for t, (trains, title) in zip(game, _GAME, strict=True)
            ]
        )

    def decode(
        self, z: Tensor, given: Batch | None = None, names: Iterable[str] | None = None
    ) -> dict[str, Distribution]:
        """Returns p(x_k | z) as the model itself does; the objective looks on."""
        decoded = super().decode(z, given, names)
        if self._reconstructions is not None and self.picture in decoded:
            mean = decoded[self.picture].mean
            shape = self.modalities[self.picture].shape
            self._reconstructions.append(mean.reshape(-1, *shape))
        return decoded

    @contextmanager
    def _collected(self) -> Iterator[list[Tensor]]:
        """Collects the means of p(x | z) that are decoded meanwhile."""
        self._reconstructions = []
        try:
            yield self._reconstructions
        finally:
            self._reconstructions = None

    def _imagined(self, x: Batch) -> Tensor:
        """Generates as many observations ``(B, *shape)`` from z that no observation led to."""
        p = self.prior(x.select(self.directions.given if self.directions else ()))
        z = p.sample(() if p.batch_shape else (x.rows,))
        if self.game.sample_z == "uniform":
            z = torch.empty_like(z).uniform_(-1, 1)
        given = x.select(self.decoder_given) if self.decoder_given else None
        with _statistics_kept(self.decoders[self.picture]):
            mean: Tensor = super().decode(z, given, [self.picture])[self.picture].mean
        return mean

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Returns the decoder and the critic as groups of their own."""
        adam = {"lr": self.game.learning_rate, "betas": self.game.betas}
        own = {
            GENERATOR: ParameterGroup([*self.decoders[self.picture].parameters()], adam),
            CRITIC: ParameterGroup([*self.critic.parameters()], adam),
        }
        taken = {id(p) for group in own.values() for p in group.parameters}
        groups = {
            name: replace(group, parameters=[p for p in group.parameters if id(p) not in taken])
            for name, group in super().parameter_groups().items()
        }
        return {**groups, **own}

    def about(self) -> str:
        """Adds the critic to what the model says of itself."""
        return f"{super().about()} A critic judges each {self.picture} that is generated."

    @classmethod
    def example_settings(cls, names: Subset) -> dict[str, Any]:
        """Judges the first modality that the model generates."""
        own = super().example_settings(names)
        return {**own, "adversarial": {"modality": own.get("targets", names)[0]}}


def critic(shape: Sequence[int], channels: Sequence[int], widths: Sequence[int]) -> nn.Sequential:
    """Builds a net ``(B, *shape) -> (B,)``: the log odds that an observation is real.

    Of pictures ``(C, H, W)``, 4×4 convolutions of stride 2, as many as halve both sides; then
    linear layers. Each is followed by a leaky ReLU of slope 0.01, none by a normalisation.
    """
    layers: list[nn.Module] = []
    if len(shape) == 3:
        halvings = min(len(channels), (min(shape[1:])).bit_length() - 1)
        for before, after in pairwise([shape[0], *channels[:halvings]]):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
    layers.append(nn.Flatten())
    first = features(nn.Sequential(*layers), shape)
    for before, after in pairwise([first, *widths]):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Linear([first, *widths][-1], 1), nn.Flatten(0))


@contextmanager
def _statistics_kept(net: nn.Module) -> Iterator[None]:
    """Leaves the running statistics of batch normalisations alone: they are those of x."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]  # noqa: SLF001
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@cache
def with_critic(cls: type[Model]) -> type[Model]:
    """Returns the class of a model with a critic beside it."""
    equation = (*cls.equation, "and a critic D: decoder minimises −λ log p(x | z) + softplus(−D)")
    members = {"equation": equation, "__doc__": cls.__doc__, "__module__": cls.__module__}
    return type(f"{cls.__name__}WithCritic", (Adversarial, cls), members)
