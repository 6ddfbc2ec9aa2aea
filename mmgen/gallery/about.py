"""What a model says of itself: in its own words, and by asking it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from mmgen.brief import OneLine, cut
from mmgen.formatting import joined, number
from mmgen.gallery.groups import FITTED, likelihood
from mmgen.inference.iterative import ITERATIONS
from mmgen.inference.sample import inferred
from mmgen.latent.alike import FittedPosterior
from mmgen.latent.resampled import CANDIDATES
from mmgen.model import Model
from mmgen.objective import Term
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.subsets import proper

MOST = 8
"""With more modalities than this, not every subset is asked for: there are too many."""

LISTED = 12
"""More subsets or terms than this are counted."""


@dataclass(frozen=True, repr=False)
class About(OneLine):
    """What is said of a model.

    Attributes:
        text: What it is, in its author's words.
        equation: What it maximises, in parts.
        remarks: How symbols are to be read, what it encodes, how z is found.
        facts: Its distributions and nets.
        settings: Its settings.
        likelihood: What decoders return: ``"p(image | z)"``.
        prior: The symbol of z's prior.
    """

    text: str
    equation: Sequence[str]
    remarks: list[str]
    facts: dict[str, str]
    settings: dict[str, str]
    likelihood: str
    prior: str


def _drawn_from(model: Model) -> dict[str, str]:
    """Says how z given a part is drawn otherwise than from its encoder."""
    facts = {}
    if model.fits_posteriors and model.fitted_prior is not None:
        where = model.fitted_prior().symbol
        facts["z given a part"] = f"one of {CANDIDATES} draws, chosen by where {where} has z"
    for subset, fitted in model.fitted_posteriors.items():
        names = ", ".join(subset.split("+"))
        count = len(fitted.get_buffer(FittedPosterior.VALUES))
        values = "one value" if count == 1 else f"{count} values"
        facts[f"z given {names}"] = f"of {values} {FITTED}q(z | {names})"
    return facts


@torch.no_grad()
def about(run: Run, registry: Registry, terms: Mapping[str, Term]) -> About:
    """Asks a model what it is."""
    model = run.model
    C = model.directions.given if model.directions else ()
    prior, posterior = model.prior(model.blank(C)), inferred(model, model.names)
    assert posterior is not None
    nets = sum(copies for copies, _ in model.encoder_nets())
    formula = model.formula if model.encoder_count(model.settings, len(model.names)) else ""
    drawn = model.sampling_prior(model.blank(C)).symbol
    fitted = {} if model.fitted_prior is None else {"z given nothing": f"{FITTED}{drawn}"}
    facts = {
        "generates": model.direction(),
        "z": f"{' × '.join(map(str, prior.event_shape))} numbers",
        "prior of z": prior.symbol,
        **fitted,
        **_drawn_from(model),
        "z given all": posterior.symbol,
        "decoders": likelihood(model, model.targets),
        "encoder nets": f"{nets:,}" + (f" = {formula}" if formula else ""),
        "plugin": str(registry.model_provider(model.kind)),
    }
    settings = model.settings.model_dump(mode="json")
    return About(
        text=model.about(),
        equation=model.equation,
        remarks=[*_symbols(run, terms), _encoded(model, prior.symbol)],
        facts=facts,
        settings={name: _written(value) for name, value in settings.items()},
        likelihood=facts["decoders"],
        prior=prior.symbol,
    )


def _written(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return cut(", ".join(f"{key} {_written(v)}" for key, v in value.items()), 200)
    if isinstance(value, list):
        return cut(", ".join(map(str, value)), 100) or "none"
    if isinstance(value, float):
        return number(value)
    return cut(str(value).lower() if isinstance(value, bool) else str(value), 100)


def _symbols(run: Run, terms: Mapping[str, Term]) -> list[str]:
    said = []
    if ways := run.model.directions:
        T, C = joined(ways.targets), joined(ways.given)
        said.append(f"Here T, what is generated, is {T}; C, what is given, is {C}.")
    warmed = [term.title or term.name for term in terms.values() if term.warmed_up]
    warmup = run.experiment.train.warmup
    if warmed and warmup:
        over = f"the first {number(warmup)} epochs" if warmup != 1 else "the first epoch"
        what = joined(warmed) if len(warmed) <= LISTED else f"{len(warmed)} terms"
        said.append(f"β, the weight of {what}, rises to 1 over {over}.")
    return said


def _encoded(model: Model, prior: str) -> str:
    """Says which subsets of the modalities a model encodes, by asking it for each."""
    names = model.names
    every = len(names) <= MOST
    outer = [*combinations(names, 1), *combinations(names, len(names) - 1)]
    asked = [*dict.fromkeys(proper(names) if every else outer)]
    encoded = [S for S in asked if model.posterior(model.blank(S)) is not None]
    which = "subset of the modalities" if every else "single modality, and all but any one"
    if len(encoded) == len(asked):
        return f"It encodes every {which}: z is drawn from its posterior given just these."
    said = "It encodes all modalities together, and no fewer."
    if encoded:
        few = len(encoded) <= LISTED
        subsets = "; ".join(joined(S) for S in encoded) if few else f"{len(encoded):,} subsets"
        said = f"It encodes all modalities together, and also: {subsets}."
    if model.directions is not None:
        C = joined(model.directions.given)
        return f"{said} To generate from {C}, z is drawn from its prior, {prior}."
    return (
        f"{said} Given others, z is found by iterative sampling: missing values start at zero and "
        f"are drawn again {ITERATIONS} times, in turns with z."
    )
