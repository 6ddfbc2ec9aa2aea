"""The checks of a modality: its likelihood, its nets, its values."""

from mmgen.testing.modality.confidence import check_confidence
from mmgen.testing.modality.likelihood import (
    check_finite,
    check_normalised,
    check_shapes,
    check_support,
)
from mmgen.testing.modality.nets import (
    check_builds,
    check_devices,
    check_dtypes,
    check_gradients,
    check_replicated,
    check_rows,
    check_state,
)
from mmgen.testing.modality.values import (
    check_configuration,
    check_describe,
    check_example,
    check_globals,
    check_parse,
    check_render,
    check_tell,
)
from mmgen.testing.tools import Check

CHECKS: tuple[Check, ...] = (
    check_configuration,
    check_example,
    check_parse,
    check_shapes,
    check_finite,
    check_support,
    check_normalised,
    check_confidence,
    check_gradients,
    check_rows,
    check_builds,
    check_state,
    check_replicated,
    check_dtypes,
    check_devices,
    check_globals,
    check_render,
    check_describe,
    check_tell,
)
"""Every check, in the order in which they run."""
