"""Data sets in which rows lack modalities: on disk, in memory, in batches, and hostile ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import CPU, Numbers, Word

from mmgen.batch import Batch
from mmgen.data.batches import Batches
from mmgen.data.index import INDEX
from mmgen.data.store import Dataset, Split, read_dataset, write_dataset
from mmgen.errors import DataError

NAMES = ("point", "colour", "side")
MODALITIES = {
    "point": Numbers(size=2),
    "colour": Word(),
    "side": Word(words=("left", "right")),
}
BEFORE = "5d733095cf1f0da13daafedc2188fa8015a03ea083f05d5d48fa7166c7504e4a"
"""The hash of a data set without holes, as it was when there were none."""

CONFIGURATIONS = {n: m.to_config() for n, m in MODALITIES.items()}


def values(rows: int) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(rows)
    return {
        "point": torch.randn(rows, 2, generator=stream),
        "colour": torch.randint(3, (rows,), generator=stream, dtype=torch.uint8),
        "side": torch.randint(2, (rows,), generator=stream, dtype=torch.uint8),
    }


def masks(rows: int) -> dict[str, Tensor]:
    """Rows 10 to 19 have all; of the others every third lacks the point, every fourth the side."""
    number = torch.arange(rows)
    whole = (number >= 10) & (number < 20)
    return {"point": (number % 3 != 0) | whole, "side": (number % 4 != 0) | whole}


def write(path: Path, **changes: Any) -> Dataset:
    arguments: dict[str, Any] = {
        "name": "toy",
        "about": "made up",
        "modalities": CONFIGURATIONS,
        "splits": {"train": Batch(values(34), masks(34)), "test": values(5)},
        "shard_rows": 10,
    }
    return write_dataset(path, **(arguments | changes))


def same(found: Batch, expected: Batch) -> None:
    assert {*found} == {*expected}
    assert {*(found.present or {})} == {*(expected.present or {})}
    for name, has in (expected.present or {}).items():
        assert torch.equal(found.present[name], has)
    for name, value in expected.items():
        assert torch.equal(found[name], value)


# On disk.


def test_what_rows_lack_comes_back_and_is_stored_as_zeros(tmp_path):
    split = write(tmp_path / "toy").splits["train"]
    has, hidden = masks(34), values(34)
    for name in has:
        hidden[name][~has[name]] = 0
    same(split.load(), Batch(hidden, has))
    some = torch.tensor([33, 0, 12, 9, 0])
    taken = Batch({n: v[some] for n, v in hidden.items()}, {n: m[some] for n, m in has.items()})
    same(split.take(some), taken)
    same(split.take(some, ["colour"]), Batch({"colour": hidden["colour"][some]}))
    assert read_dataset(tmp_path / "toy").splits["test"].present == {}


def test_only_shards_with_holes_say_which_rows_have_what(tmp_path):
    write(tmp_path / "toy")
    held = {f.stem[-7:]: sorted(load_file(f)) for f in tmp_path.glob("toy/*.safetensors")}
    more = ["present/point", "present/side"]
    assert held["n-00000"] == ["colour", "point", *more, "side"]
    assert held["n-00001"] == held["t-00000"] == ["colour", "point", "side"]


def test_without_holes_the_files_are_what_they_were(tmp_path):
    all_there = {n: torch.ones(34, dtype=torch.bool) for n in NAMES}
    plain = write(tmp_path / "a", splits={"train": values(34)})
    masked = write(tmp_path / "b", splits={"train": Batch(values(34), all_there)})
    assert plain.hash == masked.hash
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert json.loads((tmp_path / "a" / INDEX).read_text())["format_version"] == 1


def test_without_holes_the_hash_is_that_of_the_versions_before_them(tmp_path):
    rows = {
        "a": torch.arange(68, dtype=torch.float32).view(34, 2),
        "b": (torch.arange(34) % 3).to(torch.uint8),
    }
    kinds = {"a": {"kind": "numbers"}, "b": {"kind": "word"}}
    written = write(tmp_path / "toy", modalities=kinds, splits={"train": rows})
    assert written.hash == BEFORE


def test_an_mmgen_that_knows_no_holes_refuses_them(tmp_path):
    write(tmp_path / "toy")
    assert json.loads((tmp_path / "toy" / INDEX).read_text())["format_version"] == 2


def test_the_hash_tells_a_missing_value_from_a_zero(tmp_path):
    zeros = {n: v * 0 for n, v in values(8).items()}
    lacking = Batch(zeros, {"point": torch.arange(8) > 0})
    hashes = [
        write(tmp_path / str(i), splits={"train": s}).hash for i, s in enumerate((zeros, lacking))
    ]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("chunk", [1, 3, 10, 34])
def test_holes_do_not_depend_on_the_chunks_in_which_rows_come(tmp_path, chunk):
    rows = Batch(values(34), masks(34))
    parts = [rows.slice(start, start + chunk) for start in range(0, 34, chunk)]
    # What a chunk stores where it says that nothing is there does not matter.
    noise = [
        Batch({**p, "point": p["point"] + ~p.present["point"][:, None]}, p.present) for p in parts
    ]
    hashes = {
        write(tmp_path / name, splits={"train": iter(each)}).hash
        for name, each in (("parts", noise), ("whole", [rows]))
    }
    assert len(hashes) == 1


def test_a_data_set_with_holes_can_be_written_from_itself(tmp_path):
    first = write(tmp_path / "toy")
    again = write(tmp_path / "again", splits={n: s.load() for n, s in first.splits.items()})
    assert again.hash == first.hash


@pytest.mark.parametrize(
    "present",
    [
        {"sound": torch.ones(8, dtype=torch.bool)},
        {"point": torch.ones(7, dtype=torch.bool)},
        {"point": torch.ones(8)},
        {"point": torch.ones(8, 2, dtype=torch.bool)},
    ],
    ids=["of no modality", "too short", "numbers", "by number"],
)
def test_masks_that_are_none_are_refused(tmp_path, present):
    with pytest.raises(DataError, match=r"which of 8 rows have '\w+' must be bool \(8,\)"):
        write(tmp_path / "toy", splits={"train": Batch(values(8), present)})
    assert not (tmp_path / "toy").exists()


# Hostile files.


def change(folder: Path, changed: dict[str, Tensor | None]) -> None:
    file = folder / "train-00000.safetensors"
    tensors = {**load_file(file), **changed}
    save_file({n: v for n, v in tensors.items() if v is not None}, file)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"present/point": torch.ones(10)}, r"have 'point' is stored as float32 \(10,\), not as"),
        ({"present/point": torch.ones(9) > 0}, r"bool \(9,\), not as bool \(10,\)"),
        ({"present/point": torch.ones(10, 2) > 0}, r"bool \(10, 2\), not as bool \(10,\)"),
        ({"present/sound": torch.ones(10) > 0}, "'sound', which is no modality"),
        ({"present/": torch.ones(10) > 0}, "'', which is no modality"),
        ({"side": None}, "no side"),
    ],
    ids=["dtype", "rows", "shape", "stranger", "nameless", "mask without values"],
)
def test_hostile_masks_are_one_error(tmp_path, changed, message):
    write(tmp_path / "toy")
    change(tmp_path / "toy", changed)
    with pytest.raises(DataError, match=rf"train-00000.safetensors is damaged.*{message}"):
        read_dataset(tmp_path / "toy")


def test_masks_in_a_data_set_that_says_it_has_none_are_refused(tmp_path):
    write(tmp_path / "toy", splits={"train": values(34)})
    change(tmp_path / "toy", {"present/point": torch.ones(10) > 0})
    with pytest.raises(DataError, match="of a format in which none does"):
        read_dataset(tmp_path / "toy")


def test_a_mask_of_other_bytes_than_0_and_1_is_read_as_what_they_are(tmp_path):
    write(tmp_path / "toy", splits={"train": Batch(values(9), {"side": torch.arange(9) > 2})})
    file = tmp_path / "toy" / "train-00000.safetensors"
    content = file.read_bytes()
    at = content.rindex(bytes([0, 0, 0, 1, 1, 1, 1, 1, 1]))
    file.write_bytes(content[:at] + bytes([0, 0, 0, 2, 255, 1, 1, 1, 1]) + content[at + 9 :])
    present = read_dataset(tmp_path / "toy").splits["train"].present["side"]
    assert present.long().tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]


# Rows that have something.


@pytest.mark.parametrize("on_disk", [True, False])
def test_rows_are_chosen_by_what_they_have(tmp_path, on_disk):
    rows = Batch(values(34), masks(34))
    split = write(tmp_path / "toy").splits["train"] if on_disk else Split((rows,))
    has = rows.present
    both = (has["point"] & has["side"]).nonzero().squeeze(1)
    found = split.having(NAMES)
    assert found.count == len(both)
    same(found.load(), Batch({n: v[both] for n, v in rows.items()}))
    point = has["point"].nonzero().squeeze(1)
    found = split.having(["point"])
    same(
        found.take(torch.tensor([5, 0, 20]), ["point", "side"]),
        Batch(
            {n: split.load()[n][point[[5, 0, 20]]] for n in ("point", "side")},
            {"side": has["side"][point[[5, 0, 20]]]},
        ),
    )
    blocks = torch.cat([block for _, block in found.blocks("colour", rows=7)])
    assert torch.equal(blocks, rows["colour"][point])
    assert split.having(["colour"]) is split
    assert split.having_any(["point", "colour"]) is split
    either = (has["point"] | has["side"]).sum()
    assert split.having_any(["point", "side"]).count == either
    assert found.having(["side"]).count == len(both)
    assert found.spread(4).count == 4


def test_of_no_row_that_has_something_an_empty_split_is_left():
    none = Split((Batch(values(6), {"point": torch.zeros(6, dtype=torch.bool)}),)).having(["point"])
    assert (none.count, none.names) == (0, [*NAMES])
    assert none.load()["point"].shape == (0, 2)
    assert [*none.blocks("point")] == []


def test_patterns_are_counted():
    split = Split((Batch(values(13), masks(13)),))
    # 0 lacks both; 3, 6, 9 the point; 4, 8 the side; 10 to 12 nothing.
    some = {("colour",): 1, ("colour", "side"): 3, ("point", "colour"): 2}
    assert split.patterns(NAMES) == {**some, NAMES: 7}
    assert split.patterns(["side", "point"])[()] == 1
    assert Split((values(4),)).patterns(NAMES) == {NAMES: 4}


# Batches.


@pytest.mark.parametrize("resident", [True, False])
def test_batches_say_what_rows_lack_and_hold_zeros_there(resident):
    class Far(Word):
        def observe(self, stored, generator=None):
            return super().observe(stored) + 5  # of zeros too

    modalities = {**MODALITIES, "side": Far(words=("left", "right"))}
    rows = Batch(values(34), masks(34))
    data = Batches(Split((rows,)), modalities, device=CPU, batch_size=8, resident=resident)
    order = data.order(3, 1)
    for number, x in enumerate(data.epoch(3, 1)):
        here = order[8 * number : 8 * number + 8]
        assert {*x.present} == {"point", "side"}
        for name, has in x.present.items():
            assert torch.equal(has, rows.present[name][here])
            assert not x[name][~has].any()
            expected = modalities[name].observe(rows[name][here])[has]
            assert torch.equal(x[name][has], expected)


def test_batches_of_complete_rows_have_no_masks():
    data = Batches(Split((values(9),)), MODALITIES, device=CPU, batch_size=4)
    assert all(x.present is None for x in data.epoch(0, 0))


def test_other_rows_stand_in_for_values_that_are_absent():
    has = torch.tensor([False, True, False, False, True, False, False])
    x = Batch({"a": torch.arange(14.0).view(7, 2), "b": torch.zeros(7)}, {"a": has})
    assert x.stood_in()["a"][:, 0].tolist() == [2, 2, 8, 2, 8, 8, 2]
    none = Batch(x.tensors, {"a": torch.zeros(7, dtype=torch.bool)})
    assert none.stood_in()["a"].isfinite().all()
    assert torch.equal(Batch(x.tensors).stood_in()["a"], x["a"])
