"""What is checked of models: a class, and settings to try it with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.experiment import explain
from mmgen.latent.base import Latent
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings
from mmgen.subsets import Subset, proper
from mmgen.testing.model import toys
from mmgen.testing.tools import require

LATENT = 3
"""The size of z, unless the setup's settings say another."""

WIDTH = 12
"""The most units of a layer, unless the setup's settings say more: checks are quick."""


@dataclass(frozen=True, eq=False, repr=False)
class Setup(OneLine):
    """A class of model, and settings to check it with.

    Attributes:
        cls: The class.
        settings: Settings beside those of its ``example_settings``, which they replace.
    """

    cls: type[Model]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The model's kind."""
        return self.cls.kind

    def settings_for(self, names: Subset, latent: int = LATENT) -> ModelSettings:
        """Builds the settings for modalities of these names.

        Raises:
            AssertionError: If the class's example and defaults give none.
        """
        fields = self.cls.Settings.model_fields
        narrow = {n: _narrow(field.default) for n, field in fields.items() if _wide(field.default)}
        example = self.cls.example_settings(names)
        chosen = {"latent": latent, **narrow, **example, **self.settings}
        try:
            return self.cls.Settings(**chosen)
        except ValidationError as error:
            wrong = explain(error, self.cls.Settings, "Settings")
            raise AssertionError(
                "no settings can be made of defaults and example_settings(names); return there "
                f"what has no default: {' '.join(wrong.split())}"
            ) from None

    def build(self, modalities: Mapping[str, Modality], latent: int = LATENT) -> Model:
        """Builds the model, always with the same first weights, in eval mode."""
        torch.manual_seed(1)
        return self.cls(modalities, self.settings_for(tuple(modalities), latent)).eval()

    def cases(self, rows: int = 5) -> Iterator[tuple[Model, Batch]]:
        """Yields models of 2 and of 3 modalities, each with observations of those it is of."""
        for count in (2, 3):
            modalities = toys.mixed(count)
            model = self.build(modalities)
            yield model, toys.observed(modalities, rows).select(model.names)


def _wide(default: object) -> bool:
    """Returns whether a setting's default is a list of widths, of which large ones are slow."""
    return isinstance(default, tuple) and any(isinstance(width, int) for width in default)


def _narrow(widths: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(min(width, WIDTH) if isinstance(width, int) else width for width in widths)


def known(model: Model, x: Batch) -> Batch:
    """Returns what the prior is given: x_C of a conditional model, else nothing."""
    return x.select(model.directions.given if model.directions else ())


def joint_posterior(model: Model, x: Batch) -> Latent:
    """Returns q(z | x) of all modalities."""
    q = model.posterior(x)
    require(
        isinstance(q, Latent),
        f"posterior() of all modalities gave {type(q).__name__}; it must encode all of them",
    )
    assert q is not None
    return q


IMPUTED = "imputed_posterior()"
"""What :func:`latents` calls the one that is drawn from only."""


def has_density(what: str, q: Latent, z: Tensor) -> bool:
    """Tells whether one of :func:`latents` has a density: all must, but the imputed posterior."""
    if what != IMPUTED:
        return True
    try:
        q.log_prob(z)
    except NotImplementedError:
        return False
    return True


def latents(model: Model, x: Batch) -> Iterator[tuple[str, Latent]]:
    """Yields every distribution of z that the model has, and which call gives it."""
    yield "prior()", model.prior(known(model, x))
    for subset in [*proper(model.names), model.names]:
        if (q := model.posterior(x.select(subset))) is not None:
            yield f"posterior() of {', '.join(subset)}", q
    if model.directions is None:
        yield IMPUTED, model.imputed_posterior(x)
