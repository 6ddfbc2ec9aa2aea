"""The hooks of a plugin, the marker for them, and the version of their contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mmgen.modality import Modality
    from mmgen.model import Model

GROUP = "mmgen"
"""The entry-point group, and pluggy's project name."""

API_VERSION = 1
"""The version of the contracts in :mod:`mmgen.modality` and :mod:`mmgen.model`; it grows when
plugins must change."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def mmgen_modalities() -> list[type[Modality]]:  # type: ignore[empty-body]
    """Returns the modality classes that this plugin provides."""


@hookspec
def mmgen_models() -> list[type[Model]]:  # type: ignore[empty-body]
    """Returns the model classes that this plugin provides."""
