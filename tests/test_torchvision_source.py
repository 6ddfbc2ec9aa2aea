"""Sets of MNIST's form: measures on hand-drawn pictures, the layout on disk, and MNIST itself."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmgen.data.sources.measure import (
    ATTRIBUTES,
    aspect,
    balance,
    hole_area,
    measured,
    slant,
    stroke_width,
)
from mmgen.data.sources.torchvision import idx_dataset
from mmgen.errors import DataError

MNIST = Path(__file__).parents[1] / os.environ.get("MMGEN_DATA", "../shared/data") / "mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST at {MNIST}: set MMGEN_DATA")


def bar(width: int, height: int, lean: float = 0.0) -> Tensor:
    picture = torch.zeros(28, 28, dtype=torch.uint8)
    for row in range(height):
        shift = round(lean * (height / 2 - row))
        left = 14 - width // 2 + shift
        picture[14 - height // 2 + row, left : left + width] = 255
    return picture


def ring(outer: int, inner: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    radius = ((rows - 13.5) ** 2 + (columns - 13.5) ** 2).sqrt()
    smooth = (outer - radius + 0.5).clamp(0, 1) - (inner - radius + 0.5).clamp(0, 1)
    return (255 * smooth).to(torch.uint8)


def spiral() -> Tensor:
    """One corridor of ground wound inwards between walls: long, but open."""
    lines = [
        "###########",
        "#.........#",
        "#.#######.#",
        "#.#.....#.#",
        "#.#.###.#.#",
        "#.#...#.#.#",
        "#.#####.#.#",
        "#.......#.#",
        "#########.#",
        "..........#",
        "###########",
    ]
    return torch.tensor([[255 * (mark == "#") for mark in line] for line in lines]).to(torch.uint8)


def one(value: Tensor) -> float:
    assert value.shape == (1,)
    assert value.dtype == torch.float32
    return float(value)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_stroke_width_of_a_long_bar_is_its_width(width: int) -> None:
    # 2·l·w / 2(l + w), but for the corner that the forward difference cuts.
    expected = 24 * width / (24 + width)
    assert one(stroke_width(bar(width, 24)[None])) == pytest.approx(expected, rel=0.03)


def test_stroke_width_of_a_ring_is_its_width_at_every_angle() -> None:
    assert one(stroke_width(ring(11, 8)[None])) == pytest.approx(3, rel=0.15)


def test_stroke_width_does_not_depend_on_a_shift() -> None:
    shifted = bar(3, 20).roll((4, -9), (0, 1))
    assert one(stroke_width(shifted[None])) == pytest.approx(one(stroke_width(bar(3, 20)[None])))


@pytest.mark.parametrize("lean", [-0.5, 0.0, 0.25, 0.5])
def test_slant_of_a_sheared_bar_is_its_shear(lean: float) -> None:
    assert one(slant(bar(3, 20, lean)[None])) == pytest.approx(lean, abs=0.03)
    assert one(slant(bar(3, 20, lean).flip(1)[None])) == pytest.approx(-lean, abs=0.03)


def test_aspect_is_width_over_height_of_the_box() -> None:
    assert one(aspect(bar(4, 20)[None])) == pytest.approx(0.2)
    assert one(aspect(bar(20, 4)[None])) == pytest.approx(5)
    assert one(aspect(ring(10, 5)[None])) == 1


def test_hole_area_counts_enclosed_ground() -> None:
    assert one(hole_area(ring(10, 4)[None])) == int((ring(4, -1) >= 128).sum())
    assert one(hole_area(bar(3, 20)[None])) == 0
    opened = ring(10, 4)
    opened[14, 14:] = 0
    assert one(hole_area(opened[None])) == 0
    both = torch.cat([ring(6, 3), ring(6, 3)])
    assert one(hole_area(both[None])) == 2 * one(hole_area(ring(6, 3)[None]))


def test_a_spiral_has_no_hole_until_it_is_shut() -> None:
    winding = spiral()
    assert one(hole_area(winding[None])) == 0
    shut = winding.clone()
    shut[9, 0] = 255
    assert one(hole_area(shut[None])) == int((shut == 0).sum())


def test_steps_across_a_corner_do_not_leave_a_hole() -> None:
    diamond = torch.zeros(5, 5, dtype=torch.uint8)
    diamond[[1, 2, 2, 3], [2, 1, 3, 2]] = 255
    assert one(hole_area(diamond[None])) == 1


def test_balance_is_the_height_of_the_weight() -> None:
    seven = bar(2, 20)
    seven[4:8, 6:22] = 255
    assert one(balance(seven[None])) > 0.05
    assert one(balance(seven.flip(0)[None])) == pytest.approx(-one(balance(seven[None])))
    assert one(balance(bar(3, 20)[None])) == 0


def test_attributes_of_drawn_shapes() -> None:
    pictures = torch.stack([bar(1, 20), bar(5, 20), bar(2, 20, 0.4), bar(20, 3), ring(9, 6)])
    found = measured(pictures)
    assert found.dtype == torch.uint8
    named = [{name for name, has in zip(ATTRIBUTES, row, strict=True) if has} for row in found]
    assert named == [set(), {"thick"}, {"slanted"}, {"wide", "thick"}, {"thick", "wide", "loop"}]


def test_bytes_and_unit_interval_measure_alike() -> None:
    pictures = torch.stack([bar(3, 20, 0.3), ring(9, 6)]).unsqueeze(1)
    assert torch.equal(measured(pictures), measured(pictures.float() / 255))


def test_an_empty_picture_measures_as_zero() -> None:
    nothing = torch.zeros(1, 28, 28, dtype=torch.uint8)
    for measure in (stroke_width, slant, aspect, hole_area, balance):
        assert one(measure(nothing)) == 0


def idx(values: np.ndarray) -> bytes:
    return (
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    )


def small_set(root: Path, folder: str, train: int = 12, test: int = 5) -> None:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    stream = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        pictures = stream.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(pictures))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))


def test_the_last_rows_become_validation(tmp_path: Path) -> None:
    small_set(tmp_path, "FashionMNIST")
    modalities, splits = idx_dataset("fashion-mnist", tmp_path, validation=4)
    assert [len(values["label"]) for values in splits.values()] == [8, 4, 5]
    assert splits["train"]["label"].tolist() == list(range(8))
    assert splits["validation"]["label"].tolist() == [8, 9, 0, 1]
    assert splits["train"]["image"].shape == (8, 1, 28, 28)
    assert modalities["label"]["classes"][1] == "Trouser"
    assert modalities["image"] == {"kind": "image", "channels": 1, "height": 28, "width": 28}


def test_a_seed_draws_the_validation_rows(tmp_path: Path) -> None:
    small_set(tmp_path, "KMNIST")
    first = idx_dataset("kmnist", tmp_path, validation=4, seed=1)[1]
    again = idx_dataset("kmnist", tmp_path, validation=4, seed=1)[1]
    whole = torch.cat([first[split]["image"] for split in ("train", "validation")]).flatten(1)
    assert torch.equal(first["train"]["image"], again["train"]["image"])
    assert len(whole.unique(dim=0)) == 12
    assert first["validation"]["label"].tolist() != [8, 9, 0, 1]


def test_an_absent_set_names_the_folder_and_two_ways_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--download") as caught:
        idx_dataset("mnist", tmp_path)
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_set_is_named(tmp_path: Path) -> None:
    small_set(tmp_path, "MNIST")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(DataError, match="cannot read mnist"):
        idx_dataset("mnist", tmp_path, validation=4)
    file.unlink()
    with pytest.raises(DataError, match="cannot read mnist"):
        idx_dataset("mnist", tmp_path, validation=4)


@pytest.mark.parametrize("validation", [0, 12, 10_000])
def test_validation_must_leave_something(tmp_path: Path, validation: int) -> None:
    small_set(tmp_path, "MNIST")
    with pytest.raises(DataError, match=f"validation={validation}"):
        idx_dataset("mnist", tmp_path, validation=validation)


def test_an_unknown_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean 'kmnist'\?; there are mnist, fashion-mnist"):
        idx_dataset("kmnst", tmp_path)


@needs_mnist
def test_mnist() -> None:
    modalities, splits = idx_dataset("mnist", MNIST)
    counts = {split: len(values["label"]) for split, values in splits.items()}
    assert counts == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert modalities["label"]["classes"] == list("0123456789")
    assert splits["test"]["label"][:5].tolist() == [7, 2, 1, 0, 4]
    train = splits["train"]
    rates = train["attributes"].float().mean(0)
    assert 0.2 < rates.min() < rates.max() < 0.8
    loop = train["attributes"][:, ATTRIBUTES.index("loop")].float()
    assert all(loop[train["label"] == digit].mean() > 0.7 for digit in (0, 6, 8, 9))
    assert all(loop[train["label"] == digit].mean() < 0.1 for digit in (1, 3, 4, 5, 7))
