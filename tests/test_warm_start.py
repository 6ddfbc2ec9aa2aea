"""mmgen train --from: weights of another run where they match, and nothing else of it."""

import json
import shutil

import pytest
import torch
from conftest import ROOT, small
from toys import Numbers, Word, differing, toy_modalities, training, write_run

from mmgen.errors import RunError
from mmgen.run import load
from mmgen.training import run_folder
from mmgen.training.warm_start import compared, take

CONFIG = ROOT / "examples" / "glyphs.toml"
OLD = ROOT / "tests" / "old_runs"
MODALITIES = toy_modalities(2)


@pytest.fixture
def other(tmp_path):
    """The folder of a run whose weights are all 0.25, and its training."""
    path = tmp_path / "other"
    state = write_run(path, "jmvae", MODALITIES, {})
    with torch.no_grad():
        for p in state.model.parameters():
            p.fill_(0.25)
    run_folder.save_weights(path, state, 3)
    return path, state


def content(folder):
    return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.rglob("*") if f.is_file()}


def test_all_weights_of_a_twin_are_taken_and_nothing_else(other):
    path, state = other
    before = content(path)
    fresh = training("jmvae", MODALITIES, seed=5)
    found = take(path, fresh.model)
    assert differing(state.model.state_dict(), fresh.model.state_dict()) == []
    assert (found.weights, found.epoch, found.reshaped, found.new, found.unused) == (
        *("best", 3, (), (), ()),
    )
    assert all(not optimiser.state for optimiser in fresh.optimisers.values())
    assert (fresh.epoch, fresh.best) == (0, float("inf"))
    assert content(path) == before


def test_what_does_not_match_keeps_its_first_weights_and_is_told(other):
    path, _ = other
    changed = {"colour": Word(), "point": Numbers(size=3, widths=(11,)), "wave": Numbers(size=2)}
    fresh = training("jmvae", changed)
    first = {n: t.clone() for n, t in fresh.model.state_dict().items()}
    found = take(path, fresh.model)
    now = fresh.model.state_dict()
    assert {*found.taken, *found.reshaped, *found.new} == set(now)
    assert any("colour" in n for n in found.taken)
    assert all("point" in n or "encoder" in n for n in found.reshaped)
    assert any("wave" in n for n in found.new)
    for name, tensor in now.items():
        if name in found.taken:
            assert (tensor == 0.25).all(), name
        else:
            assert tensor.equal(first[name]), name
    line = str(found)
    assert "\n" not in line
    assert f"{len(found.taken)} of {len(now)} tensors of the model" in line
    assert f"{len(found.reshaped)} of another shape (" in line
    assert f"{len(found.new)} new here (" in line


def test_another_kind_of_model_takes_what_it_shares(other):
    path, _ = other
    found = take(path, training("jmvae-kl", MODALITIES).model)
    assert {n.split(".")[0] for n in found.taken} >= {"decoders"}
    assert found.unused or found.reshaped or found.new


def test_the_last_weights_are_taken_where_there_are_no_best(other):
    path, _ = other
    (path / "best.safetensors").unlink()
    found = take(path, training("jmvae", MODALITIES).model)
    assert found.weights == "last"


def test_buffers_are_taken_too(tmp_path):
    class Normed(Numbers):
        def encoder(self):
            return torch.nn.Sequential(torch.nn.Linear(self.size, 4), torch.nn.BatchNorm1d(4))

    modalities = {"a": Normed(), "b": Word()}
    state = write_run(tmp_path, "hierarchical", modalities, {})
    for name, buffer in state.model.named_buffers():
        buffer.fill_(7)
        assert "running" in name or "num_batches" in name
    run_folder.save_weights(tmp_path, state, 1)
    fresh = training("hierarchical", modalities).model
    take(tmp_path, fresh)
    assert all((buffer == 7).all() for buffer in fresh.buffers())
    assert [*fresh.buffers()]


def test_nothing_is_read_to_compare(other):
    path, _ = other
    fresh = training("jmvae", MODALITIES)
    first = {n: t.clone() for n, t in fresh.model.state_dict().items()}
    assert compared(path, fresh.model) == take(path, training("jmvae", MODALITIES).model)
    assert differing(first, fresh.model.state_dict()) == []


def test_old_runs_with_numbers_for_names_are_read_if_their_modalities_are_alike():
    old = load(OLD / "jmvae", device="cpu")
    fresh = training("jmvae", old.modalities, model=old.experiment.model.settings)
    assert set(take(OLD / "jmvae", fresh.model).taken) == set(fresh.model.state_dict())
    assert differing(old.model.state_dict(), fresh.model.state_dict()) == []
    turned = dict(reversed(old.modalities.items()))
    with pytest.raises(RunError, match="of format 1"):
        take(OLD / "jmvae", training("jmvae", turned).model)


# Folders that are none, or that lie.


def test_a_folder_that_is_no_run_is_one_clear_error(tmp_path):
    model = training("jmvae", MODALITIES).model
    with pytest.raises(RunError, match="holds no run"):
        take(tmp_path / "nowhere", model)
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(Exception, match=r"experiment\.json"):
        take(tmp_path, model)


def test_nothing_that_matches_is_an_error(tmp_path):
    write_run(tmp_path, "jmvae", {"x": Numbers(), "y": Word()}, {})
    with pytest.raises(RunError, match="none of its weights has a name and a shape of this model"):
        take(tmp_path, training("hierarchical", {"v": Word(words=("a", "b")), "w": Word()}).model)


@pytest.mark.parametrize("damage", ["cut", "words", "infinite", "newer", "no header"])
def test_damaged_weights_change_nothing(other, damage):
    path, state = other
    file = path / "best.safetensors"
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[:-8])
    elif damage == "words":
        file.write_bytes(b"no tensors at all")
    elif damage == "infinite":
        with torch.no_grad():
            [*state.model.parameters()][-1].fill_(float("inf"))
        run_folder.save_weights(path, state, 3)
    elif damage == "newer":
        file.write_bytes(whole.replace(b'\\"format\\": 2', b'\\"format\\": 9'))
    else:
        file.write_bytes(whole.replace(b'"mmgen"', b'"nmgem"'))
    assert damage == "infinite" or file.read_bytes() != whole
    fresh = training("jmvae", MODALITIES)
    first = {n: t.clone() for n, t in fresh.model.state_dict().items()}
    with pytest.raises(RunError, match=r"best\.safetensors"):
        take(path, fresh.model)
    assert differing(first, fresh.model.state_dict()) == []


def test_a_pipe_is_not_waited_for(other):
    import os

    path, _ = other
    (path / "best.safetensors").unlink()
    os.mkfifo(path / "best.safetensors")
    with pytest.raises(RunError, match=r"best\.safetensors"):
        take(path, training("jmvae", MODALITIES).model)


def test_weights_of_whole_numbers_do_not_match(other, monkeypatch):
    path, state = other
    tensors = {f"model/{n}": t.to(torch.int32) for n, t in state.model.state_dict().items()}
    run_folder._write(path / "best.safetensors", tensors, {"epoch": 1})
    with pytest.raises(RunError, match="none of its weights"):
        take(path, training("jmvae", MODALITIES).model)


# The command.


def test_a_run_begins_with_another_and_can_go_on_without_it(
    mmgen, small_glyphs, trained, tmp_path, monkeypatch
):
    other, run = tmp_path / "other", tmp_path / "run"
    shutil.copytree(trained, other)
    before = content(other)
    words = [*small(small_glyphs, 1), "train.seed=8", "--no-figures", "--out", run]
    code, _, err = mmgen("train", CONFIG, *words, "--from", other)
    assert code == 0, err
    told = " ".join(err.split())
    count = len(load(trained, device="cpu").model.state_dict())
    assert f"begins with the best weights of {other}" in told
    assert f"{count} of {count} tensors of the model" in told
    assert content(other) == before
    noted = json.loads((run / "environment.json").read_text())["began_with"]
    assert (noted["run"], noted["weights"]) == (str(other), "best")
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    theirs = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    assert first["validation"]["loss"] < theirs[0]["validation"]["loss"]

    shutil.rmtree(other)
    code, _, err = mmgen("train", run, "--resume", "train.epochs=2", "--no-figures")
    assert code == 0, err
    assert "epoch 2/2" in err


def test_a_run_that_was_stopped_before_its_first_step_has_the_weights(
    small_glyphs, trained, tmp_path
):
    from mmgen.experiment import Experiment
    from mmgen.training import session

    experiment = Experiment.read(CONFIG, [*small(small_glyphs, 1), "train.seed=8"])
    out = tmp_path / "run"
    prepared = session.prepare(experiment, begin_with=trained)
    session.start(prepared, out)
    again = session.prepare(experiment)
    assert differing(prepared.training.model.state_dict(), again.training.model.state_dict())
    assert session.resume(again, out)
    assert differing(prepared.training.model.state_dict(), again.training.model.state_dict()) == []

    (out / "last.safetensors").unlink()  # stopped even before they were written
    with pytest.raises(RunError, match=r"before the weights that it took of .* were kept"):
        session.resume(session.prepare(experiment), out)


def test_a_dry_run_says_what_would_be_taken(mmgen, small_glyphs, trained, tmp_path):
    words = [*small(small_glyphs, 1), "--dry-run", "modalities.label.decoder_widths=[33]"]
    code, out, err = mmgen("train", CONFIG, *words, "--from", trained)
    assert code == 0, err
    assert "begins with the best weights of" in " ".join(out.split())
    assert "of another shape (" in " ".join(out.split())


def test_what_cannot_be_begun_with_is_one_message_and_no_folder(
    mmgen, small_glyphs, trained, tmp_path
):
    run = tmp_path / "run"
    for words, message in (
        (("--from", trained, "--out", trained, "--force"), "the new run goes there"),
        (("--from", tmp_path / "nothing", "--out", run), "holds no run"),
        (("--from", small_glyphs, "--out", run), "holds no run"),
        (("--from", trained, "--out", run, "--resume"), "--from begins a new run"),
    ):
        code, _, err = mmgen("train", CONFIG, *small(small_glyphs, 1), "--no-figures", *words)
        assert code == 2, err
        assert message in " ".join(err.split())
        assert not run.exists()
    assert (trained / "last.safetensors").exists()
