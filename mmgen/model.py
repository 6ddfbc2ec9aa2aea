"""The contract of a model: the distributions of z, and the objective.

A model is one class in one file. Its author writes the settings, which become ``[model]`` in a
configuration, and three methods; everything else follows from them, see :mod:`mmgen.inference`:

    class MyVAE(Model):
        \"\"\"One sentence. Then what it maximises, and References.\"\"\"

        kind = "my-vae"
        api_version = 1

        class Settings(ModelSettings):
            \"\"\"Attributes: what each is; a user reads it as a comment in the configuration.\"\"\"

        def __init__(self, modalities, settings): ...   # builds decoders and encoders
        def prior(self, given): ...                     # p(z), or p(z | x_C)
        def posterior(self, x): ...                     # q(z | x_S), S = what x holds, or None
        def objective(self, x): ...                     # terms, each with a value per row

A plugin hands the class over with the hook ``mmgen_models``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.distributions import Distribution

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.errors import ConfigError, listed
from mmgen.latent.aggregate import FittedMixture
from mmgen.latent.base import Latent
from mmgen.latent.resampled import Resampled
from mmgen.modality import Modality
from mmgen.nets.by_modality import ByModality
from mmgen.nets.unflattened import unflattened
from mmgen.objective import MODEL, Objective
from mmgen.settings import MOST, Betas, Section, Size, Widths
from mmgen.subsets import Subset, ordered
from mmgen.subsets import name as subset_name


class AdversarialSettings(Section):
    """A critic that the decoder of one modality learns to fool: :mod:`mmgen.adversarial`.

    Attributes:
        modality: The one whose decoder is trained against it.
        likelihood_weight: λ, the weight of −log p(x | z) in that decoder's loss.
        sample_z: Where z of fakes that no observation led to come from: the prior, or uniform in
            (−1, 1), as in the authors' code.
        learning_rate: Adam's step size, of the critic and of that decoder.
        betas: Adam's decay rates of the two moments, of both.
        channels: Of pictures: of the critic's 4×4 convolutions, from outside in.
        widths: Of the critic's linear layers after them.
    """

    modality: str
    likelihood_weight: Annotated[float, Field(ge=0, le=MOST)] = 1.0
    sample_z: Literal["prior", "uniform"] = "prior"
    learning_rate: PositiveFloat = 1e-4
    betas: Betas = (0.5, 0.999)
    channels: Widths = (64, 128, 256, 256)
    widths: Widths = (1024,)


class ModelSettings(Section):
    """What every model's settings have.

    Attributes:
        latent: Z, the size of z: by how many numbers a row is described.
        adversarial: A critic that the decoder of one modality learns to fool, such as
            {modality = "image"}.
    """

    latent: Size = 64
    adversarial: AdversarialSettings | None = None


@dataclass(frozen=True, repr=False)
class Directions(OneLine):
    """What a conditional model generates from what; a joint model has none.

    Attributes:
        given: C.
        targets: T.
    """

    given: Subset
    targets: Subset

    def __str__(self) -> str:
        return f"{listed(self.targets)} from {listed(self.given)}"


@dataclass(frozen=True, eq=False, repr=False)
class ParameterGroup(OneLine):
    """Parameters that minimise one loss, with an optimiser of their own.

    Attributes:
        parameters: The parameters.
        optimiser: What of Adam's settings is other than the experiment's: ``{"lr": 1e-4}``.
    """

    parameters: Sequence[nn.Parameter]
    optimiser: Mapping[str, Any] = field(default_factory=dict)


class Model(nn.Module, ABC):
    """p(x, z) = p(z | x_C) Π_k p(x_k | z, x_C), and q(z | x_S) for the subsets S that it encodes.

    Modalities are independent given z. A joint model has no x_C; a conditional one has
    :attr:`directions`.

    Args:
        modalities: The K ≥ 2 modalities by name, in the experiment's order.
        settings: Of the class's own ``Settings``.
        targets: The modalities that it generates; all of them by default.
        inputs: The number of features that decoders read; the size of z by default.

    Attributes:
        kind: What a configuration names.
        api_version: The version of this contract that the author wrote the class for: 1.
        equation: What it maximises, in parts that may stand on lines of their own: text with
            subscripts written ``x_k`` or ``x_{S}``. Shown in the report.
        directions: What it generates from what; ``None``: anything from anything.
        decoder_given: The modalities that the decoders read beside z.
        fits_prior: Whether, when a training has ended, what z is drawn from given nothing is fitted
            to the posteriors of training rows; set by the author, of a joint model.
        fitted_prior: What was fitted then, see :meth:`sampling_prior`.
        fits_posteriors: Whether so is what z is drawn from given values that many rows have; set by
            the author, of a joint model with encoders of subsets.
        fitted_posteriors: What was fitted then, see :meth:`sampling_posterior`.
        formula: How many encoder nets it has, for K modalities: ``"2^(K−1)·K"``; see
            :meth:`encoder_count`.
        weighs_likelihoods: Whether :meth:`objective` itself heeds :attr:`likelihood_weights`, where
            some log p(x_k | z) is no term by itself.
        incomplete_rows: Whether it trains on rows that lack modalities: its terms have masks, and
            :meth:`posterior` of a batch with masks is, of each row, that of what the row has. See
            :meth:`check_patterns`.
        variants: Settings with which it grows otherwise with K, by a word for each: ``mmgen
            growth`` shows them beside its defaults.
    """

    kind: ClassVar[str]
    api_version: ClassVar[int]
    Settings: ClassVar[type[ModelSettings]] = ModelSettings
    equation: ClassVar[tuple[str, ...]] = ()
    formula: ClassVar[str] = ""
    weighs_likelihoods: ClassVar[bool] = False
    incomplete_rows: ClassVar[bool] = False
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        settings: ModelSettings,
        *,
        targets: Subset | None = None,
        inputs: int | None = None,
    ) -> None:
        super().__init__()
        self.modalities = dict(modalities)
        self.names: Subset = tuple(modalities)
        self.settings = settings
        self.latent = settings.latent
        self.directions: Directions | None = None
        self.decoder_given: Subset = ()
        self.fits_prior = False
        self.fitted_prior: FittedMixture | None = None
        self.fits_posteriors = False
        self.fitted_posteriors: ByModality[nn.Module] = ByModality({})
        self.targets = self.names if targets is None else targets
        inputs = self.latent if inputs is None else inputs
        self.decoders = ByModality({n: modalities[n].decoder(inputs) for n in self.targets})

    # What an author writes.

    @abstractmethod
    def prior(self, given: Batch) -> Latent:
        """Returns p(z), or p(z | x_C) of a conditional model.

        Args:
            given: Observations, none of them for a joint model.

        Returns:
            A distribution of batch shape ``()`` if it is the same for all rows, else ``(B,)``.
        """

    @abstractmethod
    def posterior(self, x: Batch) -> Latent | None:
        """Returns q(z | x_S) of exactly the modalities S that ``x`` holds, of batch shape ``(B,)``.

        ``None`` if no encoder was trained for S. All modalities together must have one. Where
        :attr:`incomplete_rows`, of a row that lacks some of S it is that of those that it has, and
        p(z) if it has none.
        """

    @abstractmethod
    def objective(self, x: Batch) -> Objective:
        """Returns the terms of the loss for a batch: each a value per row, and its weight."""

    # What follows; to be overridden only to be faster, or where the model is described so.

    def decode(
        self, z: Tensor, given: Batch | None = None, names: Iterable[str] | None = None
    ) -> dict[str, Distribution]:
        """Returns p(x_k | z) of each modality, with z's batch shape.

        Args:
            z: ``(..., *event)``, of any batch shape.
            given: Observations ``(B, *shape)`` of :attr:`decoder_given`, if there are any: those of
                z's last batch dimension.
            names: Which modalities; all that are generated if left out.
        """
        wanted = self.targets if names is None else ordered(self.targets, names)
        h = self.decoder_input(z, given)
        rows = h.reshape(-1, h.shape[-1])
        return {n: unflattened(self.decoders[n](rows), h.shape[:-1]) for n in wanted}

    def sampling_prior(self, given: Batch) -> Latent:
        """Returns what z is drawn from given nothing but x_C: p(z), unless one was fitted.

        To draw from alone: the objective, the bound and all likelihoods are those of :meth:`prior`.
        """
        return self.prior(given) if self.fitted_prior is None else self.fitted_prior()

    def sampling_posterior(self, x: Batch, *, resampled: bool = True) -> Latent | None:
        """Returns what z is drawn from given x_S: q(z | x_S), unless more was fitted.

        Where something was fitted to this x_S, that takes its place; where a prior was, draws are
        moved to where that has z. To draw from alone, as :meth:`sampling_prior` is.

        Args:
            x: Observations of S.
            resampled: Whether draws are moved.
        """
        q, S = self.posterior(x), ordered(self.names, x)
        # Where some rows lack a part of S, it is not x_S that they are alike in.
        if q is None or not self.fits_posteriors or self.names == S or x.having(x) is not None:
            return q
        if subset_name(S) in self.fitted_posteriors:
            q = self.fitted_posteriors[subset_name(S)](self.flattened(x), q)
        if not resampled or self.fitted_prior is None:
            return q
        return Resampled(q, self.fitted_prior(), self.prior(Batch({})))

    def flattened(self, x: Batch) -> Tensor:
        """Returns the numbers of each row's observations one after the other, ``(B, D)``."""
        return torch.cat([x[n].flatten(1).to(self.like.dtype) for n in ordered(self.names, x)], 1)

    def decoder_input(self, z: Tensor, given: Batch | None = None) -> Tensor:  # noqa: ARG002
        """Returns what decoders read ``(..., features)``: z itself."""
        return z

    def imputed_posterior(self, x: Batch) -> Latent:
        """Returns what z is drawn from given all modalities, some of them imputed (eq. 6)."""
        q = self.posterior(x)
        assert q is not None, "every model encodes all of its modalities"
        return q

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Returns the groups of parameters that minimise a loss of their own, by name."""
        return {MODEL: ParameterGroup(list(self.parameters()))}

    def forward(self, x: Batch) -> Objective:
        """Returns the objective as it is trained: what a wrapper of the model calls.

        The likelihoods of modalities have their ``likelihood_weight`` in the losses, not in the
        bound.

        Raises:
            ConfigError: If one is weighted that is no term by itself, and the model does not
                weigh it (:attr:`weighs_likelihoods`).
        """
        objective, weights = self.objective(x), self.likelihood_weights
        if not weights:
            return objective
        found = {term.likelihood_of for term in objective if term.trains}
        lost = [n for n in weights if n in self.targets and n not in found]
        if lost and not self.weighs_likelihoods:
            raise ConfigError(
                f"modalities.{lost[0]}.likelihood_weight = {weights[lost[0]]:g}: in the objective "
                f"of a {self.kind}, log p({lost[0]} | z) is no term that could be weighted; leave "
                "the setting out"
            )
        return objective.emphasised(weights)

    @property
    def likelihood_weights(self) -> dict[str, float]:
        """The weights of log p(x_k | z) in training other than 1, by modality."""
        weights = {n: m.likelihood_weight for n, m in self.modalities.items()}
        return {n: weight for n, weight in weights.items() if weight != 1}

    def check_patterns(self, patterns: Iterable[Subset]) -> None:
        """Checks that it can be trained on rows that have exactly these sets of modalities.

        Asked only where :attr:`incomplete_rows`; by default it can, whatever they have.

        Args:
            patterns: Sets of modalities; none is empty.

        Raises:
            ConfigError: If it cannot. The message says what to set.
        """

    def encoder_nets(self) -> Iterator[tuple[int, nn.Module]]:
        """Yields every net that reads an observation: how many copies it holds, and it."""
        for part in self.modules():
            if isinstance(part, ByModality) and part is not self.decoders:
                nets = (n for n in part.children() if not isinstance(n, nn.ParameterList))
                yield from ((int(getattr(net, "copies", 1)), net) for net in nets)

    # What it says of itself.

    @classmethod
    def example_settings(cls, names: Subset) -> dict[str, Any]:  # noqa: ARG003
        """Returns the settings without a default that fit some modalities, to try the model out."""
        return {}

    @classmethod
    def encoder_count(cls, settings: ModelSettings, modalities: int) -> int | None:  # noqa: ARG003
        """Returns how many encoder nets it has by its formula; ``None`` if there is none."""
        return None

    def about(self) -> str:
        """Says what the model is, in a sentence or two for a reader of its report."""
        return (type(self).__doc__ or self.kind).strip().partition("\n\n")[0].replace("\n    ", " ")

    @property
    def like(self) -> Tensor:
        """A tensor of the model's device and dtype."""
        return next(self.parameters())

    def blank(self, names: Iterable[str], rows: int = 1) -> Batch:
        """Returns rows of zeros of some modalities: to ask what the model would do with them."""
        wanted = ordered(self.names, names)
        like = self.like
        shapes = {n: (rows, *self.modalities[n].shape) for n in wanted}
        return Batch({n: like.new_zeros(shape) for n, shape in shapes.items()})

    def generates(self, given: Iterable[str], targets: Iterable[str]) -> bool:
        """Returns whether it can generate the targets from what is given, in this direction."""
        if self.directions is None:
            return True
        C, T = {*self.directions.given}, {*self.directions.targets}
        return {*given} in (C, C | T) and {*targets} <= T

    def direction(self) -> str:
        """Says what it generates from what: ``"label from image"``."""
        return str(self.directions or f"any of {listed(self.names)} from any")


def log_likelihoods(
    model: Model, x: Batch, z: Tensor, names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Returns log p(x_k | z) of each modality in nats, of z's batch shape.

    Args:
        model: The model.
        x: Observations ``(B, *shape)``.
        z: ``(..., B, *event)``.
        names: Which modalities; all that are generated if left out.
    """
    given = x.select(model.decoder_given) if model.decoder_given else None
    return {n: p.log_prob(x[n]) for n, p in model.decode(z, given, names).items()}
