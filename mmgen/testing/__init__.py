"""The conformance checks of the contract of a modality, for its author to run.

A plugin's whole test file::

    @parametrize_with_checks(Tone(pitch=440), Tone(pitch=880))
    def test_contract(modality, check):
        check(modality)

Each check is a plain function of a modality that raises ``AssertionError``: what is wrong, and how
to fix it. One that does not apply raises ``unittest.SkipTest``, which pytest understands.
``mmgen plugins check KIND`` runs the same list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import SkipTest

from pydantic import ValidationError

from mmgen.brief import OneLine
from mmgen.experiment import explain
from mmgen.isolation import attempt
from mmgen.modality import Modality
from mmgen.registry.discovery import one_line, short_message
from mmgen.registry.loading import load
from mmgen.testing.confidence import check_confidence
from mmgen.testing.likelihood import (
    check_finite,
    check_normalised,
    check_shapes,
    check_support,
)
from mmgen.testing.nets import (
    check_builds,
    check_devices,
    check_dtypes,
    check_gradients,
    check_replicated,
    check_rows,
    check_state,
)
from mmgen.testing.tools import Check, limited, plain
from mmgen.testing.values import (
    check_configuration,
    check_describe,
    check_example,
    check_globals,
    check_parse,
    check_render,
)

if TYPE_CHECKING:
    import pytest

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "check_plugin",
    "parametrize_with_checks",
    "run_checks",
]

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
)
"""Every check, in the order in which they run."""


@dataclass(frozen=True, repr=False)
class CheckResult(OneLine):
    """The result of a check.

    Attributes:
        name: The name of the check, without ``check_``.
        passed: False if the contract is broken. A check that does not apply passes.
        message: What is wrong and how to fix it, or why the check does not apply.
    """

    name: str
    passed: bool
    message: str = ""


def run_checks(modality: Modality) -> list[CheckResult]:
    """Runs every check on a modality; raises nothing."""
    return [_run(check, modality) for check in CHECKS]


def check_plugin(name: str, modules: Sequence[str] = ()) -> dict[str, list[CheckResult]]:
    """Runs every check on a kind, or on all kinds of a plugin.

    Each kind is built with its defaults; a field without one takes the first of its
    ``Field(examples=[...])``.

    Args:
        name: A kind, a plugin's entry point, an importable module or the path of a ``.py`` file.
        modules: Plugins that are not installed, as for :func:`mmgen.registry.loading.load`.

    Raises:
        PluginError: If there is no such kind or plugin, or it is broken. The message says why.
    """
    registry = load(modules)
    if name not in registry.kinds and name not in {record.name for record in registry.records}:
        registry = load([*modules, name])
    kinds = {kind for record in registry.records if record.name == name for kind in record.kinds}
    if name in registry.kinds or not kinds:
        kinds = {name}
    return {kind: _run_default(registry.get(kind)) for kind in sorted(kinds)}


def _run_default(cls: type[Modality]) -> list[CheckResult]:
    made = attempt(cls.from_examples)
    if isinstance(made.error, ValidationError):
        wrong = explain(made.error, cls, cls.kind)
        fix = "give fields without a default examples, as in Field(examples=[...])"
        return [CheckResult("defaults", False, f"no example can be built; {fix}\n{wrong}")]
    if made.value is None:
        words = one_line(made.error or TypeError("from_examples() gave nothing"))
        return [CheckResult("defaults", False, f"no example can be built: {words}")]
    return run_checks(made.value)


def parametrize_with_checks(*modalities: Modality) -> "pytest.MarkDecorator":
    """Decorates a test ``(modality, check)``: it runs for every check of every modality."""
    import pytest

    pairs = [
        pytest.param(modality, check, id=f"{modality.kind}{number or ''}-{_name(check)}")
        for number, modality in enumerate(modalities)
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("modality", "check"), pairs)


def _run(check: Check, modality: Modality) -> CheckResult:
    def run() -> None:
        with limited():
            check(modality)

    name, error = _name(check), attempt(run).error
    if error is None:
        return CheckResult(name, True)
    if type(error) is SkipTest:
        return CheckResult(name, True, f"does not apply: {error}")
    # An AssertionError, and no subclass of the plugin's, is what a check says.
    words = short_message(error) if type(error) is AssertionError else f"raised {one_line(error)}"
    return CheckResult(name, False, plain(words))


def _name(check: Check) -> str:
    return check.__name__.removeprefix("check_")
