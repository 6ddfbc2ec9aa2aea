"""The format on disk: round trips, damage, and folders that appear complete or not at all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, small
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmgen.data import shard, writing
from mmgen.data.index import INDEX
from mmgen.data.store import Dataset, Split, ensure_absent, read_dataset, write_dataset
from mmgen.errors import DataError
from mmgen.files.tensors import Values, write_values

MODALITIES: dict[str, dict[str, Any]] = {
    "photo": {"kind": "image", "channels": 1},
    "word": {"kind": "label", "classes": ["a", "b"]},
    "sound": {"kind": "wave"},
}


def values(rows: int, seed: int = 0) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return {
        "photo": torch.randint(256, (rows, 1, 3, 2), generator=stream, dtype=torch.uint8),
        "word": torch.randint(2, (rows,), generator=stream, dtype=torch.uint8),
        "sound": torch.randn(rows, 5, generator=stream),
    }


def write(path: Path, **changes: Any) -> Dataset:
    arguments: dict[str, Any] = {
        "name": "toy",
        "about": "made up",
        "modalities": MODALITIES,
        "splits": {"train": values(23), "test": values(4, seed=1)},
        "shard_rows": 10,
    }
    return write_dataset(path, **(arguments | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "toy").path


def test_round_trip_keeps_values_types_and_description(tmp_path: Path) -> None:
    dataset = write(tmp_path / "deep" / "toy")
    assert (dataset.name, dataset.about, dataset.modalities) == ("toy", "made up", MODALITIES)
    assert [len(split.shards) for split in dataset.splits.values()] == [3, 1]
    for name, written in {"train": values(23), "test": values(4, seed=1)}.items():
        split = dataset.splits[name]
        assert split.count == len(written["word"])
        for key, read in split.load().items():
            assert read.dtype == written[key].dtype
            assert torch.equal(read, written[key])
    assert read_dataset(dataset.path).hash == dataset.hash
    dataset.verify()


def test_rows_are_taken_across_shards(folder: Path) -> None:
    indices = torch.tensor([22, 0, 10, 9, 0, 19, 20])
    split = read_dataset(folder).splits["train"]
    for name, rows in split.take(indices).items():
        assert torch.equal(rows, values(23)[name][indices])
    assert list(split.take(indices, ["word"])) == ["word"]
    assert split.take(indices[:0])["photo"].shape == (0, 1, 3, 2)


@pytest.mark.parametrize("index", [-1, 23])
def test_a_row_out_of_range_is_refused(folder: Path, index: int) -> None:
    split = read_dataset(folder).splits["train"]
    with pytest.raises(IndexError):
        split.take(torch.tensor([0, index]))
    with pytest.raises(IndexError):
        Split((values(23),)).take(torch.tensor([0, index]))


def test_size_in_bytes_counts_the_chosen_modalities(folder: Path) -> None:
    split = read_dataset(folder).splits["train"]
    assert split.nbytes(["photo"]) == 23 * 6
    assert split.nbytes() == 23 * (6 + 1 + 20)


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_rows_are_read_when_they_are_asked_for(
    folder: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "KEPT", kept)
    read: list[int] = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *a: read.append(real(*a)) or read[-1])
    split = read_dataset(folder).splits["train"]
    assert sum(read) < 2000  # headers
    read.clear()
    for _ in range(2):
        rows = split.take(torch.tensor([3, 4, 5, 22, 4]), ["sound"])["sound"]
        assert torch.equal(rows, values(23)["sound"][[3, 4, 5, 22, 4]])
    if kept:  # a small column is read once: whole, from the shards that were asked for
        assert read == [10 * 20, 3 * 20]
    else:  # rows that follow each other at once
        assert read == 2 * [3 * 20, 20, 20]


def test_blocks_are_all_rows_in_order(folder: Path) -> None:
    split = read_dataset(folder).splits["train"]
    for rows in (None, 1, 4, 100):
        starts, blocks = zip(*split.blocks("sound", rows), strict=True)
        assert torch.equal(torch.cat(blocks), values(23)["sound"])
        assert list(starts) == [sum(map(len, blocks[:i])) for i in range(len(blocks))]
    assert [start for start, _ in split.blocks("sound", 2, every=3)] == [0, 6, 10, 16, 20]


CUT = "was changed or cut short while it was read; write the data set again"


@pytest.mark.parametrize("change", ["cut", "written", "grown"])
def test_a_shard_that_changes_while_it_is_read_is_an_error(folder: Path, change: str) -> None:
    split = read_dataset(folder).splits["train"]
    split.load()
    file = folder / "train-00001.safetensors"
    content = file.read_bytes()
    after = {"cut": content[:-1], "written": content, "grown": content + b" "}[change]
    file.write_bytes(after)
    os.utime(file, ns=(1, 1))
    for read in (
        split.load,
        lambda: split.take(torch.tensor([12])),
        lambda: list(split.blocks("sound")),
    ):
        with pytest.raises(DataError, match=rf"train-00001.safetensors {CUT}"):
            read()
    assert len(split.take(torch.tensor([0, 22]))["sound"]) == 2  # of the other shards


TRUNCATES = """
import os, sys
from mmgen.training import plan
from mmgen.cli.app import main
from mmgen.data import batches, shard
batches.fits_on_device = plan.fits_on_device = lambda *_: False  # too large for memory
shard.KEPT = 0
rows, calls = batches.Batches._rows, []
def cut(self, indices):
    calls.append(indices)
    if len(calls) == 6:
        os.truncate(file, 4096)
    return rows(self, indices)
batches.Batches._rows = cut
file = sys.argv.pop()
main()
"""


def test_a_shard_cut_short_in_training_ends_it_with_one_message(
    small_glyphs: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_glyphs, data)
    config = ROOT / "examples" / "glyphs.toml"
    words = ["train", str(config), *small(data), "--no-figures", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATES, *words, str(data / "train-00000.safetensors")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr  # a mapped file: -SIGBUS
    assert CUT in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error") == 1


def test_hash_follows_content_and_nothing_else(tmp_path: Path) -> None:
    changed = values(23)
    changed["sound"][3, 2] += 1
    other = MODALITIES | {"sound": {"kind": "wave", "rate": 8}}
    base = write(tmp_path / "base").hash
    assert write(tmp_path / "again", name="renamed", about="reworded").hash == base
    assert write(tmp_path / "values", splits={"train": changed, "test": values(4, 1)}).hash != base
    assert write(tmp_path / "modalities", modalities=other).hash != base


def test_modalities_may_be_views_of_one_tensor(tmp_path: Path) -> None:
    same = torch.arange(12.0).view(2, 6).t()
    kinds = {"a": {"kind": "x"}, "b": {"kind": "x"}}
    dataset = write(tmp_path / "toy", modalities=kinds, splits={"train": {"a": same, "b": same}})
    assert all(torch.equal(value, same) for value in dataset.splits["train"].load().values())


def test_an_edited_byte_is_found_by_verify(folder: Path) -> None:
    file = folder / "train-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00001\.safetensors changed"):
        read_dataset(folder).verify()


def truncate(folder: Path) -> None:
    file = folder / "train-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def empty(folder: Path) -> None:
    (folder / "train-00001.safetensors").write_bytes(b"")


def lose_shard(folder: Path) -> None:
    (folder / "test-00000.safetensors").unlink()


def lose_rows(folder: Path) -> None:
    file = folder / "train-00002.safetensors"
    save_file({name: rows[:2].clone() for name, rows in load_file(file).items()}, file)


def lose_modality(folder: Path) -> None:
    file = folder / "train-00002.safetensors"
    save_file({"photo": load_file(file)["photo"]}, file)


def lose_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def other_type(folder: Path) -> None:
    file = folder / "train-00002.safetensors"
    rows = load_file(file)
    save_file(rows | {"sound": rows["sound"].double()}, file)


def other_shape(folder: Path) -> None:
    file = folder / "test-00000.safetensors"
    rows = load_file(file)
    save_file(rows | {"sound": rows["sound"][:, :4].contiguous()}, file)


def pipe(folder: Path) -> None:
    (folder / "train-00001.safetensors").unlink()
    os.mkfifo(folder / "train-00001.safetensors")


def break_json(folder: Path) -> None:
    (folder / INDEX).write_text((folder / INDEX).read_text()[:-40])


def not_an_object(folder: Path) -> None:
    (folder / INDEX).write_text("[1, 2]")


def foreign_version(folder: Path) -> None:
    edit(folder, format_version=99)


def foreign_format(folder: Path) -> None:
    edit(folder, format="something else")


def edit_classes(folder: Path) -> None:
    edit(folder, modalities=MODALITIES | {"word": {"kind": "label", "classes": ["b", "a"]}})


def edit_count(folder: Path) -> None:
    raw = json.loads((folder / INDEX).read_text())
    raw["splits"]["train"]["count"] = 24
    edit(folder, splits=raw["splits"])


def escape_the_folder(folder: Path) -> None:
    raw = json.loads((folder / INDEX).read_text())
    raw["splits"]["test"]["shards"][0]["file"] = "../test-00000.safetensors"
    edit(folder, splits=raw["splits"])


def edit(folder: Path, **changes: Any) -> None:
    raw = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(raw | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"train-00001.safetensors is damaged"),
        (empty, r"train-00001.safetensors is damaged"),
        (lose_shard, r"test-00000.safetensors: there is no such file"),
        (lose_rows, r"should have 3 rows of 'photo', but holds \(2, 1, 3, 2\)"),
        (lose_modality, r"train-00002.safetensors is damaged"),
        (other_type, r"shard 2 of split 'train' stores 'sound' as float64 \(5,\), the first .*32"),
        (other_shape, r"shard 0 of split 'test' stores 'sound' as float32 \(4,\), the first .*5,"),
        (pipe, r"train-00001.safetensors: is a pipe, not a file"),
        (lose_index, r"holds no dataset.json; `mmgen data` writes one"),
        (break_json, r"dataset.json: is not valid JSON"),
        (not_an_object, r"dataset.json: holds no JSON object"),
        (foreign_version, r"format version 99; this mmgen reads version 1"),
        (foreign_format, r"dataset.json: format: "),
        (edit_classes, r"changed after it was written"),
        (edit_count, r"train: should have 24 rows, but its shards hold 23"),
        (escape_the_folder, r"dataset.json: splits.test.shards.0.file: "),
    ],
)
def test_damage_is_named(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message):
        read_dataset(folder)


def header(**changes: Any) -> bytes:
    places: dict[str, Any] = {
        "photo": {"dtype": "U8", "shape": [4, 1, 3, 2], "data_offsets": [0, 24]},
        "word": {"dtype": "U8", "shape": [4], "data_offsets": [24, 28]},
        "sound": {"dtype": "F32", "shape": [4, 5], "data_offsets": [28, 108]},
    }
    for name, change in changes.items():
        places[name] = {**places.get(name, {}), **change}
    return json.dumps(places).encode()


DEEP = b'{"photo":' + b"[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        header(word={"data_offsets": [20, 24]}),
        header(word={"data_offsets": [24, 2**70]}),
        header(word={"data_offsets": [-4, 28]}),
        header(sound={"data_offsets": [28, 100]}),
        header(sound={"shape": [4, 6]}),
        header(sound={"shape": [4.0, 5]}),
        header(sound={"shape": [10**400, 5]}),
        header(sound={"dtype": "F31"}),
        header(sound={"shape": [0, 10**30], "data_offsets": [28, 28]}),
        header(more={"dtype": "U8", "shape": [0, 10**30], "data_offsets": [0, 0]}),
        header(more={"dtype": "U8", "shape": [], "data_offsets": [108, 109]}),
        header(word={"extra": 1}),
        header()[:-1],
        b"[]",
        b"\xff\xfe",
        b"",
        DEEP,
    ],
    ids=range(17),
)
def test_a_header_that_the_format_does_not_allow_is_damage(folder: Path, text: bytes) -> None:
    file = folder / "test-00000.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(108))
    with pytest.raises(DataError, match=r"test-00000.safetensors is damaged") as error:
        read_dataset(folder)
    assert len(str(error.value)) < 500
    good = header()
    file.write_bytes(len(good).to_bytes(8, "little") + good + bytes(108))
    assert read_dataset(folder).splits["test"].count == 4


@pytest.mark.parametrize("length", [2**63, 10**9, 2000])
def test_a_header_longer_than_its_file_is_damage(folder: Path, length: int) -> None:
    (folder / "test-00000.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(DataError, match=r"test-00000.safetensors is damaged"):
        read_dataset(folder)


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_files_are_readable_as_the_umask_says(
    mmgen: Any, small_glyphs: Path, tmp_path: Path, umask: int
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    before = os.umask(umask)
    try:
        few = ("--train", 40, "--validation", 8, "--test", 8)
        assert mmgen("data", "glyphs", *few, "--out", data)[0] == 0
        if umask == 0o027:  # a run takes seconds, and stricter is the rarer case
            config = ROOT / "examples" / "glyphs.toml"
            assert mmgen("train", config, *small(data, 1), "--out", run)[0] == 0
            assert (run / "figures").is_dir()
            assert (run / "best.safetensors").is_file()
    finally:
        os.umask(before)
    found = [data, *data.iterdir(), *([run, *run.rglob("*")] if run.exists() else [])]
    assert len(found) >= 7
    for path in found:
        full = 0o777 if path.is_dir() else 0o666
        assert oct(path.stat().st_mode & 0o777) == oct(full & ~umask), path


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder"):
        read_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), ValueError("bug")])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_crash_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, replacing: bool
) -> None:
    path = tmp_path / "toy"
    before = write(path).hash if replacing else None
    written = []

    def fail_at_the_third(file: Path, values: dict[str, Values], words: dict[str, str]) -> None:
        written.append(file)
        if len(written) == 3:
            raise failure
        write_values(file, values, words)

    monkeypatch.setattr(writing, "write_values", fail_at_the_third)
    with pytest.raises(DataError if isinstance(failure, OSError) else type(failure)):
        write(path, force=True, splits={"train": values(30, seed=2)})
    assert [entry.name for entry in tmp_path.iterdir()] == (["toy"] if replacing else [])
    if replacing:
        assert read_dataset(path).hash == before


def test_what_is_there_is_replaced_only_on_demand(folder: Path) -> None:
    before = read_dataset(folder)
    with pytest.raises(DataError, match=r"exists; .* --force"):
        write(folder)
    after = write(folder, force=True, splits={"train": values(5, seed=3)})
    assert list(after.splits) == ["train"]
    assert sorted(entry.name for entry in folder.iterdir()) == [INDEX, "train-00000.safetensors"]
    assert [entry.name for entry in folder.parent.iterdir()] == ["toy"]
    assert torch.equal(before.splits["train"].load()["word"], values(23)["word"])


def test_a_data_set_can_be_rewritten_from_itself(folder: Path) -> None:
    splits = {name: split.load() for name, split in read_dataset(folder).splits.items()}
    assert write(folder, force=True, splits=splits, shard_rows=7).splits["train"].count == 23


def test_force_takes_an_empty_folder(tmp_path: Path) -> None:
    assert write(tmp_path / "toy", force=True).splits["test"].count == 4
    (tmp_path / "empty").mkdir()
    ensure_absent(tmp_path / "empty", force=True)
    assert write(tmp_path / "empty", force=True).splits["test"].count == 4


@pytest.mark.parametrize("other", ["thesis.tex", "model.safetensors"])
def test_force_never_replaces_anything_else(tmp_path: Path, other: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / other).write_text("years")
    with pytest.raises(DataError, match=other):
        write(tmp_path / "work", force=True)
    with pytest.raises(DataError, match=other):
        write(tmp_path / "work" / other, force=True)
    assert (tmp_path / "work" / other).read_text() == "years"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": {}}, "at least one modality"),
        ({"splits": {}}, "at least one modality and one split"),
        ({"modalities": MODALITIES | {"word": {}}}, "'word': its configuration names no 'kind'"),
        ({"modalities": MODALITIES | {"more": {"kind": "x"}}}, "the modalities are .* more"),
        ({"splits": {"../train": values(3)}}, r"split '\.\./train': a name"),
        ({"splits": {"train": values(0)}}, "has"),
        ({"splits": {"train": values(3) | {"word": torch.zeros(2)}}}, "as many rows"),
        ({"splits": {"train": values(3) | {"word": torch.tensor(1)}}}, "as many rows"),
        (
            {"splits": {"train": values(3), "test": values(3) | {"word": torch.zeros(3)}}},
            "'word' is not of one shape and type",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "toy", **changes)
    assert list(tmp_path.iterdir()) == []


# Rows that come in chunks.


def chunks(rows: dict[str, Tensor], *sizes: int) -> Iterator[dict[str, Tensor]]:
    start = 0
    for size in sizes:
        yield {name: value[start : start + size] for name, value in rows.items()}
        start += size


@pytest.mark.parametrize("sizes", [(23,), (1, 0, 9, 13), (10, 10, 3), (1,) * 23, (22, 1)], ids=str)
def test_files_are_the_same_bytes_in_whatever_chunks_the_rows_come(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    whole = write(tmp_path / "whole")
    splits = {"train": chunks(values(23), *sizes), "test": chunks(values(4, seed=1), 3, 1)}
    dataset = write(tmp_path / "chunks", splits=splits)
    assert dataset.hash == whole.hash
    files = sorted(file.name for file in whole.path.iterdir())
    assert [*sorted(file.name for file in dataset.path.iterdir())] == files
    for name in files:
        assert (dataset.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"photo": torch.zeros(2, 1, 3, 2)}, "'photo' is not of one shape and type"),
        ({"word": torch.zeros(3, dtype=torch.uint8)}, "as many rows"),
        ({"more": torch.zeros(2)}, "the modalities are photo, word, sound"),
        (ValueError("torn"), "torn"),
    ],
    ids=["dtype", "rows", "names", "raising"],
)
def test_a_chunk_that_does_not_fit_leaves_nothing(
    tmp_path: Path, second: Any, message: str
) -> None:
    def rows() -> Iterator[dict[str, Tensor]]:
        yield values(15)
        if isinstance(second, Exception):
            raise second
        yield values(2) | second

    with pytest.raises((DataError, ValueError), match=message):
        write(tmp_path / "toy", splits={"train": rows()})
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'train' has no rows"):
        write(tmp_path / "toy", splits={"train": iter([])})


def test_what_is_measured_on_the_rows_is_kept(tmp_path: Path) -> None:
    def fit(splits: Any) -> Any:
        assert [split.count for split in splits.values()] == [23, 4]
        assert torch.equal(splits["train"].load(["sound"])["sound"], values(23)["sound"])
        return MODALITIES | {"sound": {"kind": "wave", "mean": 3}}

    dataset = write(tmp_path / "toy", fit=fit)
    assert dataset.modalities["sound"] == {"kind": "wave", "mean": 3}


BOUNDED = """
import resource, sys, torch
from pathlib import Path
from mmgen.data.store import write_dataset

def rows():
    for number in range(256):  # of a mebibyte each
        yield {"a": torch.full((256, 4096), number % 256, dtype=torch.uint8)}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

path = Path(sys.argv[1])
write_dataset(path / "small", name="", about="", modalities={"a": {"kind": "a"}},
              splits={"train": [next(rows())]})
before = peak()
write_dataset(path / "large", name="", about="", modalities={"a": {"kind": "a"}},
              splits={"train": rows()})
print(peak() - before)
"""


def test_memory_is_bounded_by_a_chunk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, tmp_path], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 24  # mebibytes, of a shard of 256


def test_a_folder_that_cannot_be_made_is_an_error_of_data(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the data set"):
        write(tmp_path / "file" / "toy")


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"cannot write the data set .*modalities"):
        write_dataset(
            tmp_path / "data",
            name="long",
            about="",
            modalities={"a" * 201: {"kind": "label"}},
            splits={"train": {"a" * 201: torch.zeros(3)}},
        )
    assert list(tmp_path.iterdir()) == []
