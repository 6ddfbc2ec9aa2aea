"""The hook that a plugin implements, its marker, and the version of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mmgen.modality import Modality

GROUP = "mmgen"
"""The entry-point group, and pluggy's project name."""

API_VERSION = 1
"""The version of the contract in :mod:`mmgen.modality`; raised when plugins must change."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def mmgen_modalities() -> list[type[Modality]]:  # type: ignore[empty-body]
    """Returns the modality classes that this plugin provides."""
