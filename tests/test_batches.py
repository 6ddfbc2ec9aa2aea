"""Batches: every row once, in an order that can be resumed, wherever the values live."""

from itertools import islice
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from mmgen.data import batches
from mmgen.data.batches import Batches
from mmgen.data.sources.synthetic import synthetic
from mmgen.data.store import Split
from mmgen.errors import DataError
from mmgen.modality import Modality
from mmgen.seeding import generator

CPU = torch.device("cpu")
ROWS = 23


class Vector(Modality):
    """Values of some width; bytes are scaled to [0, 1]."""

    kind: ClassVar[str] = "vector"
    api_version: ClassVar[int] = 1
    width: int = 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    def encoder(self) -> nn.Module:
        return nn.Identity()

    def decoder(self, in_features: int) -> nn.Module:
        return nn.Identity()

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return stored.float() / 255


class Noisy(Vector):
    kind: ClassVar[str] = "noisy"

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        assert generator is None
        return torch.bernoulli(stored.float() / 255)


MODALITIES = {"number": Vector(width=1), "point": Vector()}


def split(shards: int = 1) -> Split:
    numbers = torch.arange(ROWS, dtype=torch.uint8).unsqueeze(1)
    stored = {"number": numbers, "point": numbers.repeat(1, 2) * 2}
    parts = [
        dict(zip(stored, rows, strict=True))
        for rows in zip(*(value.chunk(shards) for value in stored.values()), strict=True)
    ]
    return Split(tuple(parts))


def made(**changes: object) -> Batches:
    arguments: dict[str, object] = {"device": CPU, "batch_size": 5}
    return Batches(split(), MODALITIES, **(arguments | changes))  # type: ignore[arg-type]


def numbers(source: Batches, seed: int | None, epoch: int, start: int = 0) -> list[int]:
    parts = [batch["number"] for batch in source.epoch(seed, epoch, start)]
    return (255 * torch.cat(parts).flatten()).round().int().tolist() if parts else []


def test_every_row_once_and_modalities_stay_paired() -> None:
    source = made()
    epoch = list(source.epoch(0, 0))
    assert len(epoch) == len(source) == 5
    assert [len(batch["number"]) for batch in epoch] == [5, 5, 5, 5, 3]
    assert sorted(numbers(source, 0, 0)) == list(range(ROWS))
    for batch in epoch:
        assert batch["point"].dtype == torch.float32
        assert torch.equal(batch["point"], 2 * batch["number"].repeat(1, 2))


def test_without_a_seed_rows_come_in_stored_order() -> None:
    assert numbers(made(), None, 3) == list(range(ROWS))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {(seed, epoch): numbers(made(), seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    torch.manual_seed(99)
    assert numbers(made(batch_size=7), 1, 1) == orders[1, 1]


def test_order_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    numbers(made(), 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_resumes_where_it_stopped() -> None:
    source = made()
    for start in range(len(source) + 1):
        assert numbers(source, 4, 2, start) == numbers(source, 4, 2)[5 * start :]


def test_observation_noise_resumes_with_the_global_generator() -> None:
    source = Batches(split(), {"point": Noisy()}, device=CPU, batch_size=5)
    torch.manual_seed(1)
    stream = source.epoch(0, 0)
    first = list(islice(stream, 2))
    state = torch.get_rng_state()
    rest = [batch["point"] for batch in stream]
    torch.set_rng_state(state)
    again = [batch["point"] for batch in source.epoch(0, 0, start=2)]
    assert len(first) == 2
    assert all(map(torch.equal, rest, again))


@pytest.mark.parametrize("shards", [1, 4])
def test_resident_or_not_makes_no_difference(shards: int) -> None:
    for resident in (True, False):
        source = Batches(split(shards), MODALITIES, device=CPU, batch_size=5, resident=resident)
        assert source.resident is resident
        assert numbers(source, 3, 1) == numbers(made(), 3, 1)


@pytest.mark.parametrize(("free", "resident"), [(10 * ROWS, True), (8 * ROWS, False)])
def test_values_are_resident_if_they_fit(
    monkeypatch: pytest.MonkeyPatch, free: int, resident: bool
) -> None:
    monkeypatch.setattr(batches, "free_memory", lambda device: free)
    assert made().resident is resident


def test_stored_values_are_not_touched() -> None:
    stored = split()
    source = Batches(stored, MODALITIES, device=CPU, batch_size=ROWS, resident=False)
    next(source.epoch(None, 0))["number"].zero_()
    assert numbers(source, None, 0) == list(range(ROWS))


def test_some_of_the_modalities() -> None:
    source = Batches(split(), {"point": Vector()}, device=CPU, batch_size=4)
    assert list(next(source.epoch(0, 0))) == ["point"]


def test_a_missing_modality_is_named() -> None:
    with pytest.raises(DataError, match=r"'pont'; did you mean 'point'\?; it has number, point"):
        Batches(split(), {"pont": Vector()}, device=CPU, batch_size=4)


@pytest.mark.parametrize("resident", [None, True, False])
def test_meta_device(resident: bool | None) -> None:
    source = made(device=torch.device("meta"), resident=resident)
    for batch in source.epoch(0, 0):
        assert {value.device.type for value in batch.values()} == {"meta"}
    assert batch["point"].shape == (3, 2)


def test_a_default_device_changes_nothing() -> None:
    source = made()
    with torch.device("meta"):
        assert numbers(source, 3, 1) == numbers(source, 3, 1)
        assert next(source.epoch(None, 0))["number"].device == CPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("resident", [None, True, False])
def test_cuda_gives_what_the_cpu_gives(resident: bool | None) -> None:
    source = made(device=torch.device("cuda"), resident=resident)
    assert source.resident is (resident is not False)
    assert numbers(source, 2, 5) == numbers(made(), 2, 5)
    assert next(source.epoch(0, 0))["number"].device.type == "cuda"


def test_streams_depend_on_the_whole_key() -> None:
    keys = [(0,), (1,), (0, 1), (1, 0), (0, "train"), (0, "test"), (0, "train", "photo")]
    firsts = {int(torch.randint(2**62, (), generator=generator(*key))) for key in keys}
    assert len(firsts) == len(keys)


def test_synthetic_modalities_share_a_class_and_only_that() -> None:
    made_up = synthetic({"a": Vector(width=16), "b": Vector(width=16)}, {"train": 3000}, classes=4)
    a, b = made_up["train"]["a"], made_up["train"]["b"]
    centres = torch.stack(
        [torch.randn(16, generator=torch.Generator().manual_seed(number)) for number in range(4)]
    )
    classes_a = torch.cdist(a, centres).argmin(1)
    classes_b = torch.cdist(b, centres).argmin(1)
    assert (classes_a == classes_b).float().mean() > 0.99
    assert torch.bincount(classes_a).min() > 600
    noise = torch.cat([a - centres[classes_a], b - centres[classes_b]], dim=1)
    assert torch.corrcoef(noise.T)[:16, 16:].abs().max() < 0.1


def test_synthetic_streams_are_independent() -> None:
    one = synthetic({"a": Vector()}, {"train": 5}, seed=1)
    more = synthetic({"b": Vector(), "a": Vector()}, {"test": 4, "train": 5}, seed=1)
    assert torch.equal(one["train"]["a"], more["train"]["a"])
    assert more["test"]["a"].shape == (4, 2)
    assert not torch.equal(more["train"]["b"], more["train"]["a"])
    assert not torch.equal(
        synthetic({"a": Vector()}, {"train": 5})["train"]["a"], one["train"]["a"]
    )
