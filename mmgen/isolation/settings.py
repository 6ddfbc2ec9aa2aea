"""The global settings of Python, numpy and torch, each with how to read and restore it."""

import gc
import locale
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter, ne
from typing import Any

from mmgen import denormals
from mmgen.brief import OneLine


@dataclass(frozen=True, repr=False)
class Setting(OneLine):
    """One setting that the whole process shares.

    Attributes:
        name: Its name in messages.
        get: Returns its value: one that compares equal while nothing has changed.
        put: Sets it to a value that ``get`` returned.
        library: The module that it belongs to, which is not imported for its sake.
        numbers: Whether it is the state of random numbers, which building nets moves rightly.
        matters: Returns whether the difference of two values deserves a note.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]
    library: str = "sys"
    numbers: bool = False
    matters: Callable[[Any, Any], bool] = ne


def loaded(library: str) -> bool:
    """Returns whether a module was imported."""
    return library in sys.modules


def _of(path: str) -> Callable[..., Any]:
    """Returns a function that looks up ``library.rest`` when it is called, and calls it."""
    library, _, rest = path.partition(".")

    def call(*values: Any, **named: Any) -> Any:
        return attrgetter(rest)(sys.modules[library])(*values, **named)

    return call


def _attributes(name: str, library: str, *paths: str) -> Setting:
    """Makes a setting of attributes. Those that are not there, in older versions, are left out."""

    def get() -> dict[str, Any]:
        return {path: value for path in paths if (value := _read(library, path)) is not None}

    def put(before: dict[str, Any]) -> None:
        for path, value in before.items():
            owner, _, last = path.rpartition(".")
            module = sys.modules[library]
            setattr(attrgetter(owner)(module) if owner else module, last, value)

    return Setting(name, get, put, library)


def _read(library: str, path: str) -> Any:
    try:
        return attrgetter(path)(sys.modules[library])
    except Exception:  # not there, or torch refuses because old and new ways were mixed
        return None


def _environment() -> dict[str, str]:
    """Returns the variables, without those that torch's compiler sets itself when it is loaded."""
    return {n: v for n, v in os.environ.items() if not n.startswith(("TORCHINDUCTOR_", "TRITON_"))}


def _put_environment(before: dict[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _put_path(before: list[str]) -> None:
    """Keeps added entries, but last: a plugin may import from there, and they hide nothing."""
    sys.path[:] = before + [entry for entry in sys.path if entry not in before]


def _hides(now: list[str], before: list[str]) -> bool:
    return now[: len(before)] != before


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _general(filters: tuple[Any, ...]) -> list[Any]:
    """Returns the filters that concern everyone's warnings, not those of one library."""
    return [f for f in filters if f[1] is None and f[3] is None and f[2].__module__ == "builtins"]


def _put_filters(before: tuple[Any, ...]) -> None:
    new = tuple(each for each in warnings.filters if each not in before)
    general = _general(new)
    filters = [*(each for each in new if each not in general), *before]
    warnings.filters[:] = filters  # type: ignore[index]
    with warnings.catch_warnings():  # which makes Python look at the list again
        pass


def _root_logger() -> tuple[int, tuple[logging.Handler, ...], int]:
    return logging.root.level, tuple(logging.root.handlers), logging.root.manager.disable


def _put_root_logger(before: tuple[int, tuple[logging.Handler, ...], int]) -> None:
    logging.root.setLevel(before[0])
    logging.root.handlers[:] = before[1]
    logging.disable(before[2])


def _collector() -> tuple[bool, tuple[int, int, int]]:
    return gc.isenabled(), gc.get_threshold()


def _put_collector(before: tuple[bool, tuple[int, int, int]]) -> None:
    (gc.enable if before[0] else gc.disable)()
    gc.set_threshold(*before[1])


def _numpy_numbers() -> tuple[Any, ...]:
    name, words, *rest = _of("numpy.random.get_state")()
    return name, words.tobytes(), *rest


def _put_numpy_numbers(before: tuple[Any, ...]) -> None:
    words = _of("numpy.frombuffer")(before[1], dtype="uint32")
    _of("numpy.random.set_state")((before[0], words, *before[2:]))


def _torch_numbers() -> list[bytes]:
    states = [_of("torch.get_rng_state")()]
    if _of("torch.cuda.is_initialized")():
        states += _of("torch.cuda.get_rng_state_all")()
    return [state.numpy().tobytes() for state in states]


def _put_torch_numbers(before: list[bytes]) -> None:
    torch = sys.modules["torch"]
    states = [torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in before]
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


def _put_device(before: Any) -> None:
    _of("torch.set_default_device")(None if str(before) == "cpu" else before)


_modes: list[Any] = []
"""The modes that were entered to leave a plugin's; held here, since one ends when it is freed."""


def _put_inference(before: bool) -> None:
    _modes.append(_of("torch.inference_mode")(before))
    _modes[-1].__enter__()


def _deterministic() -> tuple[bool, bool]:
    return (
        _of("torch.are_deterministic_algorithms_enabled")(),
        _of("torch.is_deterministic_algorithms_warn_only_enabled")(),
    )


def _autocast() -> list[tuple[str, bool, Any]]:
    enabled, dtype = _of("torch.is_autocast_enabled"), _of("torch.get_autocast_dtype")
    return [(kind, enabled(kind), dtype(kind)) for kind in ("cpu", "cuda")]


def _put_autocast(before: list[tuple[str, bool, Any]]) -> None:
    for kind, enabled, dtype in before:
        _of("torch.set_autocast_enabled")(kind, enabled)
        _of("torch.set_autocast_dtype")(kind, dtype)


PYTHON = (
    # First, because a low one lets nothing else be put back.
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("the working directory", os.getcwd, os.chdir),
    Setting("the environment variables", _environment, _put_environment),
    Setting("sys.path", lambda: list(sys.path), _put_path, matters=_hides),
    Setting("the umask", _umask, os.umask),
    Setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    Setting(
        "the warnings filters",
        lambda: tuple(warnings.filters),
        _put_filters,
        matters=lambda now, before: _general(now) != _general(before),
    ),
    Setting("the root logger", _root_logger, _put_root_logger),
    _attributes("the hook", "sys", "excepthook", "unraisablehook"),
    _attributes("the hook of threads", "threading", "excepthook"),
    Setting("the garbage collector", _collector, _put_collector),
    Setting(
        "which signals are blocked",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
        lambda value: signal.pthread_sigmask(signal.SIG_SETMASK, value),
    ),
    Setting(
        "the alarm clock",
        lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        lambda on: on or signal.setitimer(signal.ITIMER_REAL, 0),
    ),
    Setting(
        "how processes start",
        lambda: _of("multiprocessing.get_start_method")(allow_none=True),
        lambda value: _of("multiprocessing.set_start_method")(value, force=True),
        "multiprocessing",
    ),
    Setting("Python's random numbers", random.getstate, random.setstate, numbers=True),
)
NUMPY = (
    Setting("numpy's random numbers", _numpy_numbers, _put_numpy_numbers, "numpy", numbers=True),
    Setting(
        "numpy's handling of errors:",
        _of("numpy.geterr"),
        lambda before: _of("numpy.seterr")(**before),
        "numpy",
    ),
)
TORCH = (
    Setting("torch's random numbers", _torch_numbers, _put_torch_numbers, "torch", numbers=True),
    *(
        Setting(f"torch's {name}", _of(f"torch.{get}"), put, "torch")
        for name, get, put in (
            ("default dtype", "get_default_dtype", _of("torch.set_default_dtype")),
            ("default device", "get_default_device", _put_device),
            # Before the gradient mode, which it sets as well.
            ("inference mode", "is_inference_mode_enabled", _put_inference),
            ("gradient mode", "is_grad_enabled", _of("torch.set_grad_enabled")),
            ("anomaly mode", "is_anomaly_enabled", _of("torch.autograd.set_detect_anomaly")),
            ("threads", "get_num_threads", _of("torch.set_num_threads")),
            (
                "threads between operations",
                "get_num_interop_threads",
                _of("torch.set_num_interop_threads"),
            ),
            # The older way to say it comes first, because it sets the new one below.
            (
                "float32 precision",
                "get_float32_matmul_precision",
                _of("torch.set_float32_matmul_precision"),
            ),
        )
    ),
    Setting("torch's autocast", _autocast, _put_autocast, "torch"),
    Setting(
        "torch's deterministic algorithms",
        _deterministic,
        lambda value: _of("torch.use_deterministic_algorithms")(value[0], warn_only=value[1]),
        "torch",
    ),
    Setting(
        "how denormal numbers are rounded",
        denormals.flushing,
        _of("torch.set_flush_denormal"),
        "torch",
    ),
    _attributes(
        "torch's",
        "torch",
        *("backends.cudnn.enabled", "backends.cudnn.benchmark", "backends.cudnn.deterministic"),
        "backends.cudnn.allow_tf32",
        "backends.fp32_precision",
        *("backends.cuda.matmul.fp32_precision", "backends.mkldnn.matmul.fp32_precision"),
        *("backends.cudnn.fp32_precision", "backends.cudnn.conv.fp32_precision"),
        "backends.cudnn.rnn.fp32_precision",
        "distributions.Distribution._validate_args",
    ),
)
SETTINGS: tuple[Setting, ...] = (*PYTHON, *NUMPY, *TORCH)
"""The settings that are put back, in this order."""
