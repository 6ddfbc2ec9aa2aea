"""Data that are larger than memory: an epoch reads its rows from the files, and keeps none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

ROWS, SIDE = 1 << 16, 64
"""268 MB of pictures."""

SCRIPT = """
import resource
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[2])
from toys import Grid

from mmgen.data.batches import Batches
from mmgen.data.shard import open_shard
from mmgen.data.split import Split

split = Split((open_shard(Path(sys.argv[1])),))
modalities = {"picture": Grid(side=64)}
assert split.nbytes() == 1 << 28


def batches(resident):
    return Batches(
        split, modalities, device=torch.device("cpu"), batch_size=256, resident=resident
    )


def epoch(stream):
    return sum(x.rows for x in stream.epoch(0, 0))


list(zip(range(3), batches(False).epoch(0, 0)))  # what is taken once
words = Path("/proc/self/status").read_text().split()
taken = int(words[words.index("VmData:") + 1]) * 1024
limit = taken + (1 << 27)  # what threads and malloc hold back is not of the rows
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    batches(True)
except RuntimeError as error:
    assert "allocate memory" in str(error), error
else:
    raise AssertionError("all rows were loaded within the limit")
print(epoch(batches(False)))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits memory as Linux does")
def test_an_epoch_of_more_data_than_memory_is_streamed(tmp_path):
    place = {"dtype": "U8", "shape": [ROWS, 1, SIDE, SIDE], "data_offsets": [0, ROWS * SIDE**2]}
    header = json.dumps({"picture": place}).encode()
    header += b" " * (-len(header) % 8)
    with (tmp_path / "rows.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + ROWS * SIDE**2)  # zeros that take no disk
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "rows.safetensors", ROOT / "tests"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{ROWS}\n"
