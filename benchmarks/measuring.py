"""Ways of doing the same, timed in turn, so that what else a machine does weighs on all of them."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Work = Callable[[], object]
"""Does a piece of work once."""

Way = Callable[[], float]
"""Does it, and returns the seconds that it took."""

UNITS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Options:
    """What all parts are told.

    Attributes:
        rounds: How often each way is timed.
        device: Where to compute.
        peer: The Python of an environment with multivae, or ``None``.
    """

    rounds: int
    device: torch.device
    peer: Path | None


@dataclass(frozen=True)
class Measured:
    """One line of a table.

    Attributes:
        what: The work, such as ``"batch 100, float32"``.
        seconds: Medians by way; :data:`OURS` is the one that others are compared with.
        note: What else is to be said.
    """

    what: str
    seconds: Mapping[str, float]
    note: str = ""

    def ratio(self, way: str) -> float:
        """Returns how many times as long another way takes."""
        return self.seconds[way] / self.seconds[OURS]


@dataclass(frozen=True)
class Section:
    """What a part found.

    Attributes:
        title: Its heading.
        about: What was done, in one paragraph.
        lines: What was measured.
    """

    title: str
    about: str
    lines: tuple[Measured, ...]


OURS = "mmgen"

FLOORS = {"products alone", "nets alone", "import torch", "python -c pass", "mmgen, from the disk"}
"""Ways that are no rivals: what ours cannot be faster than, and a slower one of ours."""


def timed(work: Work, device: torch.device | str = "cpu") -> Way:
    """Makes a way of what does the work, and waits for the device."""

    def way() -> float:
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        return time.perf_counter() - started

    return way


def wait(device: torch.device | str) -> None:
    """Waits until a device has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def alternate(ways: Mapping[str, Way], rounds: int, warm: int = 2) -> dict[str, float]:
    """Times ways in turn, and returns the median of each.

    Args:
        ways: By name.
        rounds: How often each is timed.
        warm: Rounds before that do not count: algorithms are chosen and memory is taken.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warm + rounds):
        for name, way in ways.items():
            seconds = way()
            if number >= warm:
                taken[name].append(seconds)
    return {name: statistics.median(each) for name, each in taken.items()}


def machine(device: torch.device) -> str:
    """Says where figures were taken: processor, its units, threads, versions, what else ran."""
    name, flags, cpuinfo = platform.processor() or platform.machine(), "", Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags = value if key.strip() == "flags" else flags
    units = ", ".join(unit for unit in UNITS if unit in flags.split())
    said = [f"{name} ({units})" if units else name]
    if device.type == "cuda":
        said.append(torch.cuda.get_device_name(device))
    said.append(f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    said.append(f"Python {platform.python_version()}, PyTorch {torch.__version__}")
    if hasattr(os, "getloadavg"):
        said.append(f"load of the minute before {os.getloadavg()[0]:.1f}")
    return "; ".join(said)
