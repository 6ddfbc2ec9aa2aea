"""The conformance checks of the contracts of modalities and of models, for authors to run.

A plugin's whole test file, of a modality or of a model::

    @parametrize_with_checks(Tone(pitch=440), Tone(pitch=880))
    def test_contract(modality, check):
        check(modality)

    @parametrize_with_checks(MyVAE, Setup(MyVAE, {"alpha": 0.1}))
    def test_contract(model, check):
        check(model)

Each check is a plain function of a modality, or of a model's :class:`Setup`, that raises
``AssertionError``: what is wrong, and how to fix it. One that does not apply raises
``unittest.SkipTest``, which pytest understands. ``mmgen plugins check KIND`` runs the same lists.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from pydantic import ValidationError

from mmgen.brief import OneLine
from mmgen.errors import PluginError
from mmgen.experiment import explain
from mmgen.isolation import attempt
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.registry.contracts import CONTRACTS
from mmgen.registry.discovery import one_line, short_message
from mmgen.registry.loading import Registry, load
from mmgen.testing.modality import CHECKS
from mmgen.testing.model import MODEL_CHECKS
from mmgen.testing.model.setup import Setup
from mmgen.testing.tools import Check, limited, plain

if TYPE_CHECKING:
    import pytest

__all__ = [
    "CHECKS",
    "MODEL_CHECKS",
    "Check",
    "CheckResult",
    "Setup",
    "check_plugin",
    "parametrize_with_checks",
    "run_checks",
]

Subject = Modality | Setup | type[Model]
"""What can be checked: a modality, or a model with settings, those of its example if left out."""


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


def run_checks(subject: Subject) -> list[CheckResult]:
    """Runs every check on a modality or a model; raises nothing."""
    what = Setup(subject) if isinstance(subject, type) else subject
    return [_run(check, what) for check in _checks(what)]


def check_plugin(name: str, modules: Sequence[str] = ()) -> dict[str, list[CheckResult]]:
    """Runs every check on a kind of modality or of model, or on all that a plugin provides.

    Each is built with its defaults. A modality's field without one takes the first of its
    ``Field(examples=[...])``, a model's what ``example_settings`` says.

    Args:
        name: A kind, a plugin's entry point, an importable module or the path of a ``.py`` file.
        modules: Plugins that are not installed, as for :func:`mmgen.registry.loading.load`.

    Returns:
        The results by what was checked: ``"modality image"``, ``"model jmvae"``.

    Raises:
        PluginError: If there is no such kind or plugin, it is broken, or it provides nothing that
            there are checks for. The message says why.
    """
    registry = load(modules)
    known = {record.name for record in registry.records}
    if name not in known and not _of_kind(registry, name):
        registry = load([*modules, name])
    found = _of_kind(registry, name) or _of_plugin(registry, name)
    if not found:
        raise _nothing(registry, name)
    return {f"{noun} {cls.kind}": RUNNERS[noun](cls) for noun, cls in found}


Found = list[tuple[str, Any]]
"""Nouns of contracts, and classes."""


def _of_kind(registry: Registry, kind: str) -> Found:
    """Returns the classes of a kind: a modality and a model may share one."""
    classes = ((contract, getattr(registry, contract.plural)) for contract in _contracts())
    return [(contract.noun, by_kind[kind]) for contract, by_kind in classes if kind in by_kind]


def _of_plugin(registry: Registry, name: str) -> Found:
    """Returns what a plugin provides and is used."""
    found = []
    for contract in _contracts():
        by_kind = getattr(registry, contract.plural)
        records = [record for record in registry.records if record.name == name]
        kinds = {kind for record in records for kind in getattr(record, contract.plural)}
        found += [(contract.noun, by_kind[kind]) for kind in sorted(kinds)]
    return found


def _contracts() -> list[Any]:
    return [contract for contract in CONTRACTS if contract.noun in RUNNERS]


def _nothing(registry: Registry, name: str) -> PluginError:
    """Says why there is nothing to check."""
    for record in registry.records:
        if record.name == name and record.status == "ok":
            return PluginError(f"plugin {record} provides no {' and no '.join(RUNNERS)} to check")
    try:
        registry.get(name)
    except PluginError as error:
        words = str(error).replace(f"modality kind {name!r}", f"modality or model kind {name!r}")
        models = ", ".join(sorted(registry.models))
        return PluginError(words.replace("\n  kinds: ", f"\n  models: {models}\n  modalities: "))
    return PluginError(f"{name}: there is nothing to check")


def _run_modality(cls: type[Modality]) -> list[CheckResult]:
    made = attempt(cls.from_examples)
    if isinstance(made.error, ValidationError):
        wrong = explain(made.error, cls, cls.kind)
        fix = "give fields without a default examples, as in Field(examples=[...])"
        return [CheckResult("defaults", False, f"no example can be built; {fix}\n{wrong}")]
    if made.value is None:
        words = one_line(made.error or TypeError("from_examples() gave nothing"))
        return [CheckResult("defaults", False, f"no example can be built: {words}")]
    return run_checks(made.value)


RUNNERS: Mapping[str, Callable[[Any], list[CheckResult]]] = {
    "modality": _run_modality,
    "model": run_checks,
}
"""What runs the checks of a class, by the noun of its contract."""


def parametrize_with_checks(*subjects: Subject) -> "pytest.MarkDecorator":
    """Decorates a test ``(modality, check)`` or ``(model, check)``.

    It runs for every check of every modality, or of every model, all of one sort.
    """
    import pytest

    found = [Setup(each) if isinstance(each, type) else each for each in subjects]
    pairs = [
        pytest.param(subject, check, id=f"{subject.kind}{number or ''}-{_name(check)}")
        for number, subject in enumerate(found)
        for check in _checks(subject)
    ]
    models = any(isinstance(subject, Setup) for subject in found)
    return pytest.mark.parametrize(("model" if models else "modality", "check"), pairs)


def _checks(subject: Modality | Setup) -> tuple[Check, ...]:
    return MODEL_CHECKS if isinstance(subject, Setup) else CHECKS


def _run(check: Check, subject: Modality | Setup) -> CheckResult:
    def run() -> None:
        with limited():
            check(subject)

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
