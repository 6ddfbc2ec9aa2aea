"""The distribution is ``mmgen-vae``; ``mmgen`` is another project, and its presence is told."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

import mmgen
from mmgen.distribution import COMMANDS, FORMER, GROUP, NAME, SOURCES
from mmgen.registry import discovery
from mmgen.registry.discovery import Record, installed
from mmgen.training import run_folder

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
POINTS = "[console_scripts]\nmmgen = mmgen.__main__:main\n\n[mmgen]\nimage = mmgen_image\n"


def information(folder: Path, name: str, version: str, points: str | None = None) -> Path:
    """Fakes an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if points is not None:
        (info / "entry_points.txt").write_text(points)
    return info


def imported(folder: Path, *options: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Imports mmgen in a new process, with this very package and a folder alone on the path."""
    code = f"import sys\nsys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n{before}\n"
    code += "import mmgen, mmgen.distribution\nassert 'torch' not in sys.modules\n"
    code += "assert 'importlib.metadata' not in sys.modules\nprint(mmgen.__version__)\n"
    # -S: what is installed where the tests run, the other project maybe, is not on the path
    words = [sys.executable, "-S", *options, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)


def test_the_other_project_on_the_path_is_told_once_in_one_line(tmp_path):
    info = information(tmp_path, "mmgen", "0.7.3")
    information(tmp_path, "mmgen-vae", "0.1.0", POINTS)
    done = imported(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{mmgen.__version__}\n")
    [warning] = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert warning.startswith("<string>:4: UserWarning: another project")  # the line that imports
    assert str(info) in warning
    assert warning.endswith(": run `pip uninstall mmgen`")
    assert imported(tmp_path, "-W", "ignore").stderr == ""


@pytest.mark.parametrize("kind", ["dist-info", "egg-info"])
def test_files_that_were_overwritten_are_to_be_installed_again(tmp_path, kind):
    (tmp_path / "mmgen").symlink_to(ROOT / "mmgen")
    info = information(tmp_path, "mmgen", "0.7.3")
    if kind == "egg-info":
        (info / "METADATA").rename(info / "PKG-INFO")
        info.rename(tmp_path / "mmgen-0.7.3-py3.8.egg-info")
    done = imported(tmp_path)
    assert done.returncode == 0
    assert (
        "run `pip uninstall mmgen`, then `pip install --force-reinstall --no-deps mmgen-vae`"
        in done.stderr
    )


def test_nothing_is_told_of_what_is_not_the_other_project(tmp_path):
    information(tmp_path, "mmgen", "0.1.0", POINTS)  # this one, under its former name
    information(tmp_path, "mmgen-vae", "0.1.0", POINTS)
    information(tmp_path, "mmgen-audio", "1.0")
    information(tmp_path, "mmgen-wallet", "16.0")
    (tmp_path / "mmgen-0.7.2.dist-info").mkdir()  # what a failed removal leaves
    (tmp_path / "mmgen-0.7.1.dist-info").touch()
    (tmp_path / "mmgen.rst-info").touch()
    done = imported(tmp_path, "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_no_entry_of_the_path_breaks_the_import(tmp_path):
    (tmp_path / "file").touch()
    odd = [str(tmp_path / "file"), str(tmp_path / "none"), "", "x" * 5000, None, b"x", 3]
    done = imported(tmp_path, "-W", "error", before=f"sys.path += {odd!r}")
    assert (done.returncode, done.stderr) == (0, "")


def found(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Record]:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(folder)])
        importlib.invalidate_caches()
        return [each.record for each in installed(None)]


def test_what_an_installation_under_the_former_name_left_is_not_found_twice(tmp_path, monkeypatch):
    information(tmp_path, FORMER, "0.1.0", POINTS)
    [before] = found(monkeypatch, tmp_path)
    assert str(before) == "image (mmgen 0.1.0)"  # as long as it is the only one
    information(tmp_path, NAME, "0.2.0", POINTS)
    [record] = found(monkeypatch, tmp_path)
    assert str(record) == "image (mmgen-vae 0.2.0)"
    # A source tree on PYTHONPATH, installed from elsewhere under either name.
    monkeypatch.syspath_prepend(str(tmp_path))
    assert discovery.first_party(before)
    assert discovery.first_party(record)


def test_runs_of_the_former_name_are_read_as_of_this_one(tmp_path):
    (tmp_path / "environment.json").write_text(
        '{"format": 1, "versions": {"python": "3.12", "mmgen": "0.1.0"}, "plugins": '
        '{"image": "image (mmgen 0.1.0)", "audio": "audio (mmgen-audio 1.0)", "x": "x.py"}}'
    )
    assert run_folder.environment(tmp_path) == {
        "format": 1,
        "versions": {"python": "3.12", "mmgen-vae": "0.1.0"},
        "plugins": {
            "image": "image (mmgen-vae 0.1.0)",
            "audio": "audio (mmgen-audio 1.0)",
            "x": "x.py",
        },
    }


def test_a_run_says_which_mmgen_trained_it(trained):
    environment = run_folder.environment(trained)
    assert environment["versions"][NAME] == mmgen.__version__
    written = json.loads((trained / "environment.json").read_text())
    assert FORMER not in written["versions"]
    assert all(f"({FORMER} " not in provider for provider in written["plugins"].values())


def test_the_project_says_the_same_of_itself():
    assert PROJECT["name"] == NAME
    assert PROJECT["version"] == mmgen.__version__
    assert list(PROJECT["scripts"]) == ["mmgen"]
    assert [*PROJECT["entry-points"]] == [GROUP, SOURCES, COMMANDS]


OLD = {
    "an extra of the other project": r"\bmmgen\[[a-z]",
    "the other project installed": r"pip3? install\b[^\n`#]*[ \"'=]mmgen(?![-\w./])",
    "the other project needed": r"dependencies\s*=\s*\[[^\]]*[\"']mmgen(?![-\w])",
    "the other project looked up": r"(?:version|distributions?|metadata)\([^)\n]*[\"']mmgen[\"']",
}
"""Ways to name the distribution as it was called before."""


@pytest.mark.parametrize(
    "text",
    [
        'pip install "mmgen[flow]"',
        "pip install --upgrade mmgen",
        "pip install 'mmgen>=0.1'",
        'dependencies = ["torch", "mmgen"]',
        'version("mmgen")',
        "distributions(name='mmgen')",
    ],
)
def test_the_former_name_would_be_found(text):
    assert any(re.search(pattern, text) for pattern in OLD.values())


def test_no_text_names_the_distribution_as_it_was_called_before():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a checkout of git")
    files = [ROOT / name for name in listed.stdout.split("\0")]
    assert len(files) > 100
    for file in files:
        if not file.is_file() or file == Path(__file__):
            continue  # a folder of its own, or removed and not yet committed
        text = file.read_bytes().decode("utf-8", "replace")
        for what, pattern in OLD.items():
            match = re.search(pattern, text)
            assert match is None, f"{file.relative_to(ROOT)}: {what}: {match and match[0]!r}"
