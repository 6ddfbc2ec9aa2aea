"""Which way a model goes that has one direction, and how its distributions are written."""

from dataclasses import dataclass

from mmgen.brief import OneLine
from mmgen.figures.tools import likelihood_of
from mmgen.run import Run


@dataclass(frozen=True, repr=False)
class ConditionalSummary(OneLine):
    """What a model of one direction generates from what.

    Attributes:
        targets: What is generated.
        given: What it is generated from.
        absent: Modalities of the experiment that take no part.
        prior: The prior of z: ``"N(0, I)"``, or ``"p(z | label)"``.
        likelihood: What decoders return: ``"p(image | z, label)"``.
    """

    targets: list[str]
    given: list[str]
    absent: list[str]
    prior: str
    likelihood: str


def conditional_summary(run: Run) -> ConditionalSummary | None:
    """Returns the direction of a run's model, or ``None`` if it goes in all."""
    model = run.model
    if model.directions is None:
        return None
    C = model.directions.given
    return ConditionalSummary(
        targets=[*model.targets],
        given=[*C],
        absent=[n for n in run.modalities if n not in model.names],
        prior=model.prior(model.blank(C)).symbol,
        likelihood=likelihood_of(model, model.targets),
    )
