"""The peak of memory that a dry run predicts, against that of the training.

    python benchmarks/memory.py [--only WORD] [--threads 1]

Each configuration is trained for three steps on synthetic data by ``mmgen train`` in a process of
its own, which also says what it planned. Real is the most that was ever resident of that process,
as the system counted it, interpreter and libraries included. Linux alone.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

TRAIN = """
import json, sys
from pathlib import Path
from mmgen.training import plan
from mmgen.cli.app import main

plain, told = plan.plan, Path(sys.argv.pop())

def noting(*args, **kwargs):
    made = plain(*args, **kwargs)
    told.write_text(json.dumps({**vars(made.memory), "peak": made.memory.peak}))
    return made

plan.plan = noting
main()
"""

IMAGE = {"kind": '"image"'}
CONVOLUTION = {"kind": '"image"', "net": '"convolution"'}
COLOUR = {**CONVOLUTION, "channels": "3", "height": "64", "width": "64"}
WIDE = {"kind": '"image"', "encoder_widths": "[2048, 2048]", "decoder_widths": "[2048, 2048]"}
LABEL = {"kind": '"label"', "classes": '["A", "B", "C", "D", "E"]'}

# Model, modalities, rows in a batch, further settings; figures are drawn unless told not to be.
CONFIGURATIONS = {
    "jmvae K=2 MLP": ("jmvae", [IMAGE, LABEL], 100, []),
    "jmvae K=2 MLP, no figures": ("jmvae", [IMAGE, LABEL], 100, ["--no-figures"]),
    "jmvae K=3 MLP, 2,000 rows": ("jmvae", [IMAGE] * 3, 2000, ["--no-figures"]),
    "jmvae K=2 convolution, 500 rows": ("jmvae", [CONVOLUTION, LABEL], 500, ["--no-figures"]),
    "jmvae K=2 convolution 64x64": ("jmvae", [COLOUR, LABEL], 200, []),
    "jmvae-kl K=4 MLP": ("jmvae-kl", [IMAGE] * 4, 100, []),
    "jmvae-kl K=5 MLP": ("jmvae-kl", [IMAGE] * 5, 100, ["--no-figures"]),
    "jmvae-kl K=4 MLP, 1,000 rows": ("jmvae-kl", [IMAGE] * 4, 1000, ["--no-figures"]),
    "jmvae-kl K=3 convolution": ("jmvae-kl", [CONVOLUTION] * 3, 100, ["--no-figures"]),
    "jmvae-kl K=4 convolution, flow": (
        "jmvae-kl",
        [CONVOLUTION] * 4,
        100,
        ["--no-figures", 'model.subset_posterior="flow"'],
    ),
    "jmvae-kl K=6 MLP": ("jmvae-kl", [IMAGE] * 6, 100, ["--no-figures"]),
    "jmvae-kl K=8 MLP": ("jmvae-kl", [IMAGE] * 8, 100, ["--no-figures"]),
    "hierarchical K=8 MLP": ("hierarchical", [IMAGE] * 8, 100, ["--no-figures"]),
    "hierarchical K=4 convolution": ("hierarchical", [CONVOLUTION] * 4, 200, ["--no-figures"]),
    "hierarchical K=3 wide MLP": ("hierarchical", [WIDE] * 3, 100, ["--no-figures"]),
    "cvae K=3 convolution": ("cvae", [CONVOLUTION] * 3, 300, ["--no-figures"]),
    "cmma K=3 wide MLP": ("cmma", [WIDE] * 3, 200, ["--no-figures"]),
    "jmvae-kl K=3 MLP, bfloat16": (
        "jmvae-kl",
        [IMAGE] * 3,
        100,
        ["--no-figures", "train.precision=bfloat16"],
    ),
}


def measured(name: str, folder: Path) -> tuple[dict[str, int], int]:
    """Trains one of :data:`CONFIGURATIONS`: what was planned, and the real peak, in bytes."""
    kind, modalities, batch, words = CONFIGURATIONS[name]
    rows = 3 * batch
    lines = ["[data]", 'source = "synthetic"', f"rows = {rows}", "classes = 5"]
    for number, settings in enumerate(modalities):
        lines += [f"[modalities.m{number}]", *(f"{k} = {v}" for k, v in settings.items())]
    lines += ["[model]", f'kind = "{kind}"']
    lines += ['targets = ["m0"]'] * (kind in ("cvae", "cmma"))
    lines += ["[train]", "epochs = 1", f"batch_size = {batch}"]
    config, planned = folder / "config.toml", folder / "planned.json"
    config.write_text("\n".join(lines) + "\n")
    log = (folder / "log.txt").open("w")
    words = ["train", str(config), *words, "--force", "--out", str(folder / "run"), str(planned)]
    # Without torch in this process: a child inherits the peak of the process that it is forked of.
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", TRAIN, *words],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), n) for n in (1, 2)],
    )
    _, status, used = os.wait4(child, 0)
    log.close()
    if status:
        sys.exit(f"{name}:\n{Path(log.name).read_text()}")
    return json.loads(planned.read_text()), used.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="those whose name has this word")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", action="store_true", help="print what was planned for what")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    print("| configuration | predicted, MiB | real, MiB | predicted / real |\n|---|---|---|---|")
    for name in CONFIGURATIONS:
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as folder:
                planned, real = measured(name, Path(folder))
            if arguments.parts:
                print({part: round(size / 2**20) for part, size in planned.items()})
            peak = planned["peak"]
            row = f"{peak / 2**20:,.0f} | {real / 2**20:,.0f} | {peak / real:.2f}"
            print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
