"""Whatever is typed or lies on the disk, mmgen ends well: see :mod:`fuzzing`."""

import json
import time

import pytest
from fuzzing import MEMORY, fuzz

SEED = 20_261_124


def shown(faults):
    return "\n".join(json.dumps(fault, indent=1)[:2000] for fault in faults[:5])


def check(numbers, seconds):
    outcome = fuzz(SEED, numbers, seconds)
    again = f"python tests/fuzzing.py --seed {SEED} --only NUMBER"
    failed = f"{len(outcome.faults)} failed; again: {again}"
    assert not outcome.faults, f"{failed}\n{shown(outcome.faults)}"
    assert outcome.peak <= MEMORY
    return outcome


@pytest.mark.ci
def test_a_minute_of_hostile_tries():
    assert check(range(5000, 100_000), seconds=60).tries > 50


@pytest.mark.slow
def test_five_thousand_hostile_tries():
    started = time.monotonic()
    assert check(range(5000), seconds=3600).tries == 5000
    print(f"{time.monotonic() - started:.0f} s")
