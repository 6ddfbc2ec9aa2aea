"""The checks of a model: what it says of itself, its distributions, its objective, its nets."""

from mmgen.testing.model.declared import (
    check_description,
    check_directions,
    check_pickle,
    check_settings,
)
from mmgen.testing.model.distributions import (
    check_decode,
    check_densities,
    check_generation,
    check_posterior,
    check_prior,
    check_temperature,
)
from mmgen.testing.model.evidence import check_evidence, check_learns
from mmgen.testing.model.incomplete import check_incomplete_rows
from mmgen.testing.model.nets import (
    check_devices,
    check_dtypes,
    check_globals,
    check_names,
    check_state,
)
from mmgen.testing.model.terms import (
    check_finite,
    check_gradients,
    check_objective,
    check_repeatable,
    check_rows,
)
from mmgen.testing.tools import Check

MODEL_CHECKS: tuple[Check, ...] = (
    check_settings,
    check_description,
    check_directions,
    check_prior,
    check_posterior,
    check_decode,
    check_generation,
    check_temperature,
    check_densities,
    check_objective,
    check_finite,
    check_gradients,
    check_rows,
    check_incomplete_rows,
    check_repeatable,
    check_state,
    check_names,
    check_dtypes,
    check_devices,
    check_globals,
    check_pickle,
    check_learns,
    check_evidence,
)
"""Every check, in the order in which they run."""
