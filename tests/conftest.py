"""What all tests share: one thread, data sets and runs small enough to train in seconds."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.distributions import Distribution

from mmgen.cli.app import main
from mmgen.data.sources import Glyphs
from mmgen.data.store import write_dataset

ROOT = Path(__file__).resolve().parents[1]

# What a shell in the background or nohup ignores, processes that tests start would ignore too.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

torch.set_num_threads(
    1
)  # the nets are too small for more, and threads fight when tests share cores


@pytest.fixture(autouse=True)
def left_as_it_was() -> Iterator[None]:
    """Fails a test that leaves torch in another state, which would change those after it."""

    def state() -> tuple[object, ...]:
        return torch.get_default_dtype(), torch.is_grad_enabled(), Distribution._validate_args

    before = state()
    yield
    assert state() == before


@pytest.fixture(scope="session", autouse=True)
def quick_baselines() -> Iterator[None]:
    """Lets reports spend a moment on baselines, not the minute that a person would wait."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TRAINING": 1e10, "LOOKING": 1e10, "LEAST_STEPS": 5}.items():
            patch.setattr(f"mmgen.evaluation.quality.{name}", value)
        yield


@pytest.fixture(scope="session")
def small_glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three modalities, 400 rows to train on."""
    path = tmp_path_factory.mktemp("data") / "glyphs"
    drawn = Glyphs(train=400, validation=80, test=80, seed=1).read()
    write_dataset(
        path, name="glyphs", about="small", modalities=drawn.modalities, splits=drawn.splits
    )
    return path


@pytest.fixture
def mmgen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmgen", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        code = stop.value.code
        return (code if isinstance(code, int) else 0), printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def trained(small_glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of jmvae-kl with small nets, two epochs."""
    from mmgen.experiment import Experiment
    from mmgen.training import session

    out = tmp_path_factory.mktemp("runs") / "small"
    experiment = Experiment.read(ROOT / "examples" / "glyphs.toml", small(small_glyphs))
    prepared = session.prepare(experiment)
    session.start(prepared, out)
    list(session.train(prepared, out))
    return out


def copied(run: Path, out: Path) -> Path:
    """Copies the files of a run folder, but for its figures."""
    out.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (out / file.name).write_bytes(file.read_bytes())
    return out


def small(data: Path, epochs: int = 2) -> list[str]:
    """Overrides that make any glyphs-like experiment train in a second."""
    nets = [
        f"modalities.{name}.{side}_widths=[32]"
        for name in ("image", "label", "attributes")
        for side in ("encoder", "decoder")
    ]
    return [f"data.path='{data}'", f"train.epochs={epochs}", "model.latent=8", *nets]
