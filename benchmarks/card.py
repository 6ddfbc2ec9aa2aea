"""A step of training on a graphics card: launched one by one, compiled, and as a CUDA graph."""

import torch

from benchmarks.measuring import OURS, Measured, Options, Section, Work, alternate, timed
from benchmarks.training import NETS, by_hand
from mmgen.batch import Batch
from mmgen.experiment import Experiment
from mmgen.training import session
from mmgen.training.loop import Training


def measure(options: Options) -> Section:
    if options.device.type != "cuda":
        return Section("Graphics card", f"Needs --device cuda; this was {options.device}.", ())
    lines = [
        _line(options, rows, precision)
        for precision in ("float32", "bfloat16")
        for rows in (100, 1000, 10_000)
    ]
    return Section(
        "Graphics card",
        "A step of JMVAE-kl as under Training, on one resident batch: as it is trained, compiled "
        "by torch.compile, and with forward and backward captured in a CUDA graph.",
        tuple(lines),
    )


def _line(options: Options, rows: int, precision: str) -> Measured:
    device = options.device
    eager, batch = prepared(rows, device, precision)
    compiled, _ = prepared(rows, device, precision, compiled=True)
    captured, _ = prepared(rows, device, precision)
    ways = {
        OURS: timed(lambda: eager.step(batch, 20.0), device),
        "compiled": timed(lambda: compiled.step(batch, 20.0), device),
        "CUDA graph": timed(graph(captured, batch), device),
        "plain loop": timed(by_hand(rows, device, precision), device),
    }
    return Measured(f"batch {rows:,}, {precision}", alternate(ways, options.rounds, warm=5))


def prepared(
    rows: int, device: torch.device, precision: str, *, compiled: bool = False
) -> tuple[Training, Batch]:
    """Returns a training and a batch for it."""
    table = {
        "data": {"source": "synthetic", "rows": rows},
        "modalities": {
            "image": {"kind": "image", **NETS},
            "label": {"kind": "label", "classes": [str(d) for d in range(10)], **NETS},
        },
        "model": {"kind": "jmvae-kl", "latent": 64, "alpha": 0.5},
        "train": {
            "batch_size": rows,
            "device": str(device),
            "precision": precision,
            "compile": compiled,
        },
    }
    made = session.prepare(Experiment.checked(table, "the benchmark"))
    made.training.model.train()
    return made.training, next(iter(made.train.epoch(0, 0)))


def graph(training: Training, batch: Batch) -> Work:
    """Captures forward and backward of a batch in a CUDA graph; the optimiser stays outside."""
    beta = torch.ones((), device=training.device)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # memory and algorithms are chosen before the capture
        for _ in range(3):
            training.model.zero_grad(set_to_none=True)
            training.backward(batch, beta)
    torch.cuda.current_stream().wait_stream(aside)
    training.model.zero_grad(set_to_none=True)  # gradients are then made, and kept, by the graph
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        training.backward(batch, beta)

    def step() -> None:
        captured.replay()
        for optimiser in training.optimisers.values():
            optimiser.step()

    return step
