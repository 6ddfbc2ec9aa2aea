"""train.early_stopping: a training that does not get better ends, and says so."""

import json

import pytest
from conftest import ROOT, small
from toys import CPU, batches, differing, toy_modalities, training

from mmgen.data.sources import Glyphs
from mmgen.data.store import write_dataset
from mmgen.gallery.diagnostics import ended_early
from mmgen.seeding import random_state
from mmgen.training import run_folder
from mmgen.training.loop import Epoch, fit

MODALITIES = toy_modalities(2)
NOTHING_LEARNED = 1e-30
"""A step size that changes no weight: no epoch is better than the first."""

CONFIG = ROOT / "examples" / "glyphs.toml"


def made(**train):
    return training(
        "jmvae", MODALITIES, **{"epochs": 20, "learning_rate": NOTHING_LEARNED, **train}
    )


def epochs(state, count=None):
    found = []
    for item in fit(state, batches(MODALITIES, 16), batches(MODALITIES, 8, seed=1)):
        found += [item] if isinstance(item, Epoch) else []
        if count is not None and len(found) == count:
            break
    return found


@pytest.mark.parametrize("patience", [1, 4])
def test_it_ends_after_so_many_epochs_that_are_no_better(patience):
    state = made(early_stopping=patience)
    done = epochs(state)
    assert [e.best for e in done] == [True] + [False] * patience
    assert state.finished
    assert state.stopped_early
    assert epochs(state) == []


def test_left_out_it_does_all_epochs():
    state = made(epochs=6)
    assert len(epochs(state)) == 6
    assert (state.stale, state.stopped_early) == (5, False)


def test_a_better_epoch_begins_the_count_anew():
    state = made(early_stopping=3)
    epochs(state, 3)
    assert state.stale == 2
    state.best = float("inf")  # so that the next one is better
    assert epochs(state, 1)[0].best
    assert state.stale == 0
    assert len(epochs(state)) == 3


def test_a_training_that_learns_is_not_ended():
    state = training("jmvae", MODALITIES, epochs=8, learning_rate=1e-3, early_stopping=3)
    assert len(epochs(state)) == 8


def test_without_validation_every_epoch_is_the_best():
    state = made(early_stopping=1, epochs=4)
    assert sum(isinstance(i, Epoch) for i in fit(state, batches(MODALITIES, 16))) == 4


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_interrupted_it_ends_where_it_would_have(tmp_path, stop):
    with random_state(CPU, 0):
        whole = made(early_stopping=3)
        expected = [(e.epoch, e.validation, e.best) for e in epochs(whole)]
    with random_state(CPU, 0):
        cut = made(early_stopping=3)
        seen = epochs(cut, stop)
        run_folder.save_checkpoint(tmp_path, cut)
    again = made(early_stopping=3)
    run_folder.resume(tmp_path, again)
    assert again.stale == stop - 1
    seen += epochs(again)
    assert [(e.epoch, e.validation, e.best) for e in seen] == expected
    assert differing(whole.model.state_dict(), again.model.state_dict()) == []


def test_more_patience_goes_on_where_it_ended(tmp_path):
    state = made(early_stopping=2)
    epochs(state)
    run_folder.save_checkpoint(tmp_path, state)
    again = made(early_stopping=5)
    run_folder.resume(tmp_path, again)
    assert not again.finished
    assert len(epochs(again)) == 3


def test_a_checkpoint_of_before_counts_from_there(tmp_path):
    state = made()
    epochs(state, 4)
    run_folder.save_checkpoint(tmp_path, state)
    file = tmp_path / "last.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    own = json.loads(header["__metadata__"]["mmgen"])
    assert own.pop("stale") == 3
    header["__metadata__"]["mmgen"] = json.dumps(own)
    words = json.dumps(header).encode()
    file.write_bytes(len(words).to_bytes(8, "little") + words + content[8 + length :])
    again = made(early_stopping=2)
    run_folder.resume(tmp_path, again)
    assert again.stale == 0
    assert len(epochs(again)) == 2


def test_a_report_knows_that_it_was_meant_to_end():
    metrics = [{"best": best} for best in (True, True, False, False)]
    assert ended_early(metrics, 2)
    assert not ended_early(metrics, 3)
    assert not ended_early(metrics, None)
    assert not ended_early(metrics[:1], 1)


def test_the_command_says_so_and_goes_on_with_more_patience(mmgen, small_glyphs, tmp_path):
    run = tmp_path / "run"
    words = [*small(small_glyphs, 9), f"train.learning_rate={NOTHING_LEARNED}", "--no-figures"]
    words += ["train.warmup_epochs=0"]
    train = ("train", CONFIG, *words, "train.early_stopping=1", "--out", run)
    code, out, err = mmgen(*train)
    assert code == 0, err
    assert out == f"{run}: trained\n"
    told = "stopped after epoch 2: for 1 epoch the bound in validation was no better"
    assert told in " ".join(err.split())
    assert "nothing is lost" not in err
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2

    code, out, err = mmgen("train", run, "--resume", "--no-figures")
    assert code == 0, err
    assert "is trained to epoch 2 already" in out
    assert "as train.early_stopping says" in " ".join(out.split())
    code, _, err = mmgen("train", run, "--resume", "train.epochs=30", "--no-figures")
    assert code == 2
    assert "set train.early_stopping above 1" in " ".join(err.split())

    code, out, err = mmgen("train", run, "--resume", "train.early_stopping=3", "--no-figures")
    assert code == 0, err
    assert "stopped after epoch 4: for 3 epochs" in " ".join(err.split())


def test_without_a_validation_split_it_is_refused(mmgen, tmp_path):
    data = tmp_path / "data"
    drawn = Glyphs(train=60, validation=2, test=20, seed=4).read()
    splits = {n: rows for n, rows in drawn.splits.items() if n != "validation"}
    write_dataset(data, name="g", about="", modalities=drawn.modalities, splits=splits)
    words = [*small(data, 2), "train.early_stopping=1"]
    code, _, err = mmgen("train", CONFIG, *words, "--out", tmp_path / "run")
    assert code == 2
    assert "train.early_stopping: " in err
    assert "has no split 'validation'" in " ".join(err.split())


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "2147483648"])
def test_patience_is_a_number_of_epochs(mmgen, small_glyphs, tmp_path, value):
    words = [*small(small_glyphs, 1), f"train.early_stopping={value}"]
    code, _, err = mmgen("train", CONFIG, *words, "--out", tmp_path / "run")
    assert code == 2
    assert "train.early_stopping: Input should be" in " ".join(err.split())
