"""What the terms of a model's objective are, as the model itself says."""

import torch

from mmgen.batch import Batch
from mmgen.isolation import attempt
from mmgen.model import Model
from mmgen.objective import Objective, Term
from mmgen.seeding import random_state


def terms(model: Model, x: Batch | None = None) -> dict[str, Term]:
    """Returns the terms of the objective by name: what they are, not their values.

    The model and torch's random state are left as they were.

    Args:
        model: The model.
        x: A row or two to ask with; zeros if left out.

    Returns:
        Nothing if the objective of such rows fails.
    """

    def asked() -> Objective:
        with torch.no_grad(), random_state(model.like.device, 0):
            return model.objective(model.blank(model.names, 2) if x is None else x)

    training = model.training
    model.eval()  # normalisations keep the statistics of what they were trained on
    try:
        objective = attempt(asked).value
    finally:
        model.train(training)
    return {term.name: term for term in objective or ()}
