import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "mmgen"
PLUGINS = ROOT / "plugins"

# Each may import those before it, and its own package.
ORDER = (
    "distribution",
    *(
        "brief",
        "stopping",
        "denormals",
        "errors",
        "formatting",
        "memory",
        "files",
        "terminal",
        "console",
        "shell",
        "toml",
    ),
    *("drawing", "tables"),
    *("settings", "experiment", "batch", "subsets", "seeding", "prediction", "modality"),
    "isolation",
    *("nets", "latent", "objective", "model", "source", "command", "inference", "adversarial"),
    *("hooks", "models"),
    "registry",
    *("data", "template", "build", "checking", "training"),
    *("given", "generated", "rows", "run", "fitting", "editing", "held_out"),
    *("tabular", "filling", "encoding", "transformer", "evaluation", "gallery"),
    *("testing", "scaffold", "cli", "__main__"),
)

MODALITY_AUTHOR = {"errors", "hooks", "modality", "nets", "data", "prediction"}
"""What the author of a modality may import."""

MODEL_AUTHOR = {"batch", "errors", "hooks", "inference", "latent", "modality", "model"}
MODEL_AUTHOR |= {"nets", "objective", "seeding", "settings", "subsets"}
"""What the author of a model may import."""


SOURCE_AUTHOR = {"brief", "data", "errors", "files", "hooks", "seeding", "source"}
"""What the author of a source may import."""

COMMAND_AUTHORS = {"mmgen_suzuki2018"}
"""The plugins that bring commands, which stand on top of everything."""


def sources(folder):
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def imports(path):
    """Yields the modules that a file imports anywhere in it, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def core_modules(path):
    """Returns which modules or packages of mmgen a file imports."""
    parts = [name.split(".") for name in imports(path)]
    found = {part[1] for part in parts if part[0] == "mmgen" and len(part) > 1}
    return {name for name in found if (CORE / name).is_dir() or (CORE / f"{name}.py").exists()}


def module(path):
    """Returns the module or package of mmgen that a file belongs to."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def core_files():
    return [p for p in sources(CORE) if p != CORE / "__init__.py"]


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", core_files(), ids=relative)
def test_imports_go_upward_only(path):
    own = module(path)
    assert own in ORDER, f"{own} has no place in the order of modules"
    before = ORDER[: ORDER.index(own)]
    assert core_modules(path) - {own} - set(before) == set()


def test_the_walk_finds_imports_in_functions_and_of_names(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("def f():\n    from mmgen import registry\n    import mmgen.models.base\n")
    assert core_modules(file) == {"registry", "models"}


def test_models_are_reached_by_their_hook_alone():
    outside = [p for p in core_files() if module(p) != "models"]
    assert [p.name for p in outside if "models" in core_modules(p)] == []


@pytest.mark.parametrize("path", sources(CORE / "models"), ids=relative)
def test_a_model_imports_what_any_author_may(path):
    assert core_modules(path) - {"models"} <= MODEL_AUTHOR


@pytest.mark.parametrize("path", core_files(), ids=relative)
def test_the_core_imports_no_plugin(path):
    assert [name for name in imports(path) if name.startswith("mmgen_")] == []


@pytest.mark.parametrize("path", sources(PLUGINS), ids=relative)
def test_a_plugin_imports_what_any_author_may(path):
    if path.relative_to(PLUGINS).parts[0] in COMMAND_AUTHORS:
        assert core_modules(path) <= set(ORDER) - {"__main__", "models", "testing", "scaffold"}
    else:
        assert core_modules(path) <= MODALITY_AUTHOR | MODEL_AUTHOR | SOURCE_AUTHOR


@pytest.mark.parametrize("path", sources(CORE / "data" / "sources"), ids=relative)
def test_a_source_imports_what_any_author_may(path):
    if path.name != "synthetic.py":  # made of the modalities in memory: no source
        assert core_modules(path) <= SOURCE_AUTHOR


@pytest.mark.parametrize("path", sources(CORE) + sources(PLUGINS), ids=relative)
def test_nothing_is_pickled(path):
    names = {name.split(".")[0] for name in imports(path)}
    assert names & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"} == set()
    attributes = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert attributes & {"torch.load", "torch.save"} == set()


HEAVY = "heavy = [m for m in ('torch', 'torchvision', 'matplotlib') if m in sys.modules]"
HELP = """
from mmgen.cli.app import main
sys.argv = ["mmgen", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize(
    "code",
    ["import mmgen; mmgen.__version__", "import mmgen.experiment", "import mmgen.cli.app", HELP],
    ids=["mmgen", "experiment", "cli", "help"],
)
def test_torch_is_not_imported_before_it_is_needed(code):
    script = f"import sys\n{code}\n{HEAVY}\nassert not heavy, heavy"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_mmgen_exports_is_there():
    import mmgen
    from mmgen import hooks, modality
    from mmgen.run import Run, load

    assert mmgen.Modality is modality.Modality
    assert (mmgen.Run, mmgen.load) == (Run, load)
    assert mmgen.hookimpl is hooks.hookimpl
    assert set(mmgen.__all__) == {"Modality", "Run", "__version__", "hookimpl", "load", "train"}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mmgen.nothing
