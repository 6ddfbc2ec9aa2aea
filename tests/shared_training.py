"""What several processes do, and one does for comparison: started by ``test_ranks.py``.

As a program, it is one of several processes, and writes what it found to a folder.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from toys import FIVE, Numbers, batches, training

from mmgen import seeding
from mmgen.batch import Batch
from mmgen.experiment import Experiment
from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.nets.blocks import Likelihood
from mmgen.settings import TrainConfig
from mmgen.training import run_folder, session
from mmgen.training.loop import Epoch, Training, evaluate
from mmgen.training.ranks import Ranks, join
from mmgen_experts.mvae import MVAE

ROWS, SIZE = 18, 8
"""Of the last batch's 2 rows, the first of 3 processes has none."""


class Normed(Numbers):
    """Numbers behind a batch normalisation, with one in the decoder."""

    kind: ClassVar[str] = "normed"

    def encoder(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.size, 5), nn.BatchNorm1d(5), nn.ReLU())

    def decoder(self, in_features: int) -> nn.Module:
        def family(mean: Tensor) -> Independent:
            noise = torch.full_like(mean, self.deviation)
            return Independent(Normal(mean, noise, validate_args=False), 1, validate_args=False)

        net = nn.Sequential(nn.Linear(in_features, 5), nn.BatchNorm1d(5), nn.Linear(5, self.size))
        return Likelihood(net, family)


PLAIN = {name: FIVE[name] for name in ("colour", "point", "wave")}
NORMED = {"colour": FIVE["colour"], "point": Normed(), "wave": FIVE["wave"]}

Made = Callable[[], Training]


def _mvae() -> Training:
    """A model whose terms have masks, of which some are drawn at random."""
    torch.manual_seed(0)
    model = MVAE(PLAIN, MVAE.Settings(latent=3, random_subsets=2))
    return Training(model, TrainConfig(batch_size=SIZE, device="cpu"), torch.device("cpu"))


CASES: dict[str, Made] = {
    "jmvae": lambda: training("jmvae", PLAIN),
    "hierarchical": lambda: training("hierarchical", PLAIN, gradient_clip=5.0),
    "jmvae-kl": lambda: training("jmvae-kl", PLAIN, gradient_clip_value=0.1),
    "drawn": lambda: training("jmvae-kl", PLAIN, {"subsets_per_step": 2}),
    "normed": lambda: training("jmvae-kl", NORMED),
    "critic": lambda: training("jmvae", PLAIN, {"adversarial": {"modality": "point"}}),
    "masked": _mvae,
    "holes": lambda: training("jmvae-kl", PLAIN),
    "fsdp": lambda: training("jmvae", PLAIN, parallel="fsdp", gradient_clip=5.0),
    "fsdp drawn": lambda: training(
        "jmvae-kl", PLAIN, {"subsets_per_step": 2}, parallel="fsdp", gradient_clip_value=0.1
    ),
    "fsdp normed": lambda: training("jmvae-kl", NORMED, parallel="fsdp"),
}


@contextmanager
def without_noise() -> Iterator[None]:
    """Has posteriors give their means, and computes in float64."""
    drawn, dtype = DiagonalGaussian.rsample, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    DiagonalGaussian.rsample = lambda q, shape=(): q.mean.expand(*shape, *q.mean.shape)  # type: ignore[method-assign]
    try:
        yield
    finally:
        DiagonalGaussian.rsample = drawn  # type: ignore[method-assign]
        torch.set_default_dtype(dtype)


def seen(case: str, x: Batch) -> Batch:
    """Hides values of the rows of some cases, by what they hold."""
    if case not in ("masked", "holes"):
        return x
    present = {"point": x["point"][:, 0] > 0, "colour": x["point"][:, 1] > 0.3}
    hidden = {n: x[n] * mask.unsqueeze(1) for n, mask in present.items()}
    return Batch({**x.tensors, **hidden}, present)


def gradients(case: str, ranks: Ranks) -> dict[str, Tensor]:
    """Takes an epoch's steps: the gradient at each, what was noted, buffers, and a validation."""
    found: dict[str, Tensor] = {}
    with without_noise():
        state = CASES[case]()
        state.ranks = ranks
        ranks.wrap(state)
        seeding.begin(0)
        data = batches(PLAIN, ROWS, SIZE)
        data.modalities, data.part = state.model.modalities, ranks.part
        state.model.train()
        for number, x in enumerate(data.epoch(0, 0)):
            share = ranks.share(data, number, x)
            noted = state.step(seen(case, x), number + 1.0, share)
            for name, value in noted.items():
                found[f"{number}/noted/{name}"] = ranks.total(value)
            for name, parameter in state.model.named_parameters():
                if parameter.grad is not None:
                    grad: Any = parameter.grad
                    grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
                    found[f"{number}/grad/{name}"] = grad.clone()
        found |= {f"buffer/{n}": b.clone() for n, b in state.model.named_buffers()}
        validated = evaluate(state, data)
        found |= {f"validated/{n}": torch.tensor(value) for n, value in validated.items()}
    return found


def decided(ranks: Ranks) -> dict[str, Any]:
    """Draws the subsets of some steps, and noise after them."""
    state = training("jmvae-kl", PLAIN, {"subsets_per_step": 2})
    seeding.begin(0)
    state.model.train()
    drawn = [state.model._subsets_of_step() for _ in range(8)]
    noise = torch.randn(3).tolist()
    with seeding.random_state(torch.device("cpu"), 5):
        validation = torch.randn(3).tolist()
    again = [state.model._subsets_of_step() for _ in range(2)]
    return {"drawn": [*drawn, *again], "noise": noise, "validation": validation}


NETS = {"encoder_widths": [5], "decoder_widths": [5]}
TABLE = {
    "data": {"source": "synthetic", "rows": 42, "classes": 3},
    "modalities": {
        "a": {"kind": "image", "height": 8, "width": 8, **NETS},
        "b": {"kind": "label", **NETS},
        "c": {"kind": "label", **NETS},
    },
    "model": {"kind": "jmvae-kl", "latent": 3, "subsets_per_step": 2},
    "train": {"epochs": 3, "batch_size": 10, "device": "cpu", "learning_rate": 0.01},
}  # fmt: skip


def train(out: Path, ranks: Ranks, items: int | None = None, parallel: str = "ddp") -> list[Epoch]:
    """Starts a run or goes on with it; stops after some items, at the 5th in mid-epoch."""
    table = json.loads(json.dumps(TABLE))
    table["train"]["parallel"] = parallel
    prepared = session.prepare(Experiment.checked(table, "tests"), ranks=ranks)
    resumed = (out / "experiment.json").exists()
    ranks.meet()
    if resumed:
        assert session.resume(prepared, out)
    else:
        session.start(prepared, out)
    epochs = []
    for number, item in enumerate(session.train(prepared, out), start=1):
        if isinstance(item, Epoch):
            epochs.append(item)
        if number == items:
            session.save(prepared, out)
            break
    return epochs


def main(folder: Path) -> None:
    """Does everything, in each of several processes."""
    torch.set_num_threads(1)
    ranks = join()
    own = folder / f"rank{ranks.part.rank}"
    own.mkdir()
    for case in CASES:
        save_file(
            {name: value.contiguous() for name, value in gradients(case, ranks).items()},
            own / f"{case}.safetensors",
        )
    (own / "decided.json").write_text(json.dumps(decided(ranks)))
    for parallel in ("ddp", "fsdp"):
        train(folder / f"{parallel}-whole", ranks, parallel=parallel)
        train(folder / f"{parallel}-stopped", ranks, items=7, parallel=parallel)
        if parallel == "ddp":
            train(folder / "left", ranks, items=7)
        epochs = train(folder / f"{parallel}-stopped", ranks, parallel=parallel)
        assert [epoch.epoch for epoch in epochs] == [2, 3]
        assert run_folder.epochs_done(folder / f"{parallel}-stopped") == 3
    train(folder / "begun-alone", ranks)
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
