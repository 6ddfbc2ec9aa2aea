"""What ``mmgen train`` is asked for: an experiment, and where its run goes."""

from dataclasses import dataclass
from pathlib import Path

from mmgen import shell, toml
from mmgen.cli import own_data
from mmgen.errors import ConfigError
from mmgen.experiment import EXPERIMENT, Experiment
from mmgen.template import default_experiment


@dataclass(frozen=True)
class Asked:
    """What was typed: where from, where to, and what else."""

    path: Path
    overrides: tuple[str, ...]
    out: Path | None
    data: Path | None
    device: str | None
    plugins: tuple[str, ...]
    other: Path | None = None
    preset: str | None = None

    def which(self, resume: bool) -> tuple[Path, Path | None]:
        """Returns the configuration or the data set's folder, and the run's.

        Raises:
            ConfigError: If the path is neither; says what to do with it.
        """
        self._check_other(resume)
        self._check_preset(resume)
        path = self.path
        run, data = own_data.is_run(path), own_data.is_dataset(path)
        if resume and run:
            return path / EXPERIMENT, self.out or path
        if resume and path.is_dir() and (self.out is None or not data):
            raise ConfigError(f"{path}: holds no run to go on with (there is no {EXPERIMENT})")
        if run:
            config = path / "config.toml"
            anew = self._train(config if config.exists() else path / EXPERIMENT)
            both = f"\nor train on the data set that it holds, as\n  {self._init()}" if data else ""
            raise ConfigError(
                f"{path}: is a run. Go on with it:\n  {self.again(path)}\n"
                f"or train anew with its settings:\n  {anew}{both}"
            )
        if not data:
            own_data.refuse_raw(path, "train")
        return path, self.out

    def _check_other(self, resume: bool) -> None:
        """Checks that the weights of another run are asked for where a new one begins."""
        if self.other is None:
            return
        if resume:
            raise ConfigError("--from begins a new run, --resume goes on with one: leave out one")
        if self.out is not None and self.out.resolve() == self.other.resolve():
            raise ConfigError(f"--from {self.other}: the new run goes there; choose another --out")

    def _check_preset(self, resume: bool) -> None:
        """Checks that a preset is asked for where settings are still to be chosen."""
        if self.preset is None:
            return
        if resume:
            raise ConfigError("--preset is for a new run, and --resume goes on with one")
        if not own_data.is_dataset(self.path) or own_data.is_run(self.path):
            raise ConfigError(
                f"--preset {self.preset}: {self.path} says its settings itself; a preset is for a "
                "data set without a configuration"
            )

    def experiment(self, source: Path) -> Experiment:
        """Reads the configuration, or makes that of a data set, with what was typed over it."""
        words = [*self.overrides]
        if self.data is not None:
            words.append(f"data.path={toml.value(str(self.data.resolve()))}")
        if self.device is not None:
            words.append(f"train.device={toml.value(self.device)}")
        if own_data.is_dataset(source):
            return default_experiment(source, words, paper=self.preset == "paper")
        return Experiment.read(source, words)

    def again(self, run: Path) -> str:
        """Returns the command that goes on with a run."""
        return shell.resume(run, plugins=self.plugins, device=self.device)

    def where_to(self) -> str:
        """Says that the run needs a folder."""
        return f"say where the run goes, such as\n  {self._train(self.path)}"

    def _train(self, source: Path) -> str:
        name = source.parent if source.name in ("config.toml", EXPERIMENT) else source
        out = own_data.free(Path("runs") / (name.resolve().stem or "run"))
        return shell.command("train", source, *self.overrides, "--out", out, plugins=self.plugins)

    def _init(self) -> str:
        return shell.command("init", self.path, "--out", "my.toml", plugins=self.plugins)
