"""Sources of plugins: options on the command line, rows in chunks, faults that harm no other."""

import json
import subprocess
import sys

import pytest
import torch
from test_plugins import Site, fakes

from mmgen.cli.data import app as data_app
from mmgen.data.sources import Glyphs, mmgen_sources
from mmgen.data.store import read_dataset
from mmgen.registry.discovery import installed, words
from mmgen.registry.loading import load
from mmgen.registry.options import options
from mmgen.source import OWN, Content, Source

SPIRALS = '''
"""A source in a file."""
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from pydantic import Field, field_validator
from mmgen.hooks import hookimpl
from mmgen.source import Content, Source

class Spirals(Source):
    """Draw points on spirals: where they are, and on which arm.

    More that nobody is told at once.
    """

    kind: ClassVar[str] = "spirals"
    api_version: ClassVar[int] = 1
    rows: Annotated[int, Field(ge=1, le=10**6)] = Field(50, description="Rows to train on.")
    turns: float = Field(1.5, gt=0, description="How often a spiral turns.")
    shift: float | None = Field(None, description="How far to the right they are.")
    hand: Literal["left", "right"] = Field("left", description="Which way they turn.")
    arms: tuple[str, ...] = Field(("a", "b"), description="The names of the arms.")
    noisy: bool = Field(False, description="Whether there is noise.")
    closed: bool = Field(True, description="Whether they are closed.")

    @field_validator("arms")
    @classmethod
    def _several(cls, arms):
        if len(arms) < 2:
            raise ValueError("name at least two")
        return arms

    def read(self):
        import torch
        def chunks(rows, seed):
            stream = torch.Generator().manual_seed(seed)
            for start in range(0, rows, 20):
                n = min(20, rows - start)
                arm = torch.randint(len(self.arms), (n,), generator=stream)
                point = torch.randn(n, 2, generator=stream) + 10 * arm[:, None]
                yield {"point": point + (self.shift or 0), "arm": arm.to(torch.uint8)}
        told = f"{self.turns} {self.hand} {self.arms} {self.noisy} {self.closed}"
        return Content(
            told,
            {"point": {"kind": "vector", "names": ["x", "y"]},
             "arm": {"kind": "label", "classes": list(self.arms)}},
            {"train": chunks(self.rows, 0), "test": chunks(9, 1)},
            self.rows + 9,
        )

@hookimpl
def mmgen_sources():
    return [Spirals]
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith(("fake_", "mmgen_file_")):
            del sys.modules[name]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "spirals.py"
    path.write_text(SPIRALS)
    return path


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def points(name, group="mmgen.sources", module=None):
    """Returns entry points of a plugin that lists a word."""
    module = module or f"fake_{name}"
    return f"{name} = {module}\n\n[{group}]\n{name} = {module}\n"


# The command line.


def test_fields_are_options_and_what_was_given_is_read(mmgen, file, tmp_path):
    out = tmp_path / "out"
    words = ("--rows", 70, "--turns", 2, "--hand", "right", "--arms", "p", "--arms", "q")
    more = ("--arms", "r", "--noisy", "--no-closed", "--shift", -3)
    code, said, err = mmgen("-p", file, "data", "spirals", "--out", out, *words, *more)
    assert (code, err.strip()) == (0, "")
    assert said == f"{out}: 70 train, 9 test; modalities point, arm\n"
    dataset = read_dataset(out)
    assert dataset.about == "2.0 right ('p', 'q', 'r') True False"
    assert dataset.modalities["arm"]["classes"] == ["p", "q", "r"]
    point = dataset.splits["train"].load(["point"])["point"]
    assert point.shape == (70, 2)
    # What a kind measures is measured on what was written.
    assert dataset.modalities["point"]["mean"] == pytest.approx(point.double().mean(0).tolist())
    assert "mmgen -p" in (out / "README.md").read_text()


def test_defaults_are_those_of_the_class(mmgen, file, tmp_path):
    assert mmgen("-p", file, "data", "spirals", "--out", tmp_path / "out")[0] == 0
    assert read_dataset(tmp_path / "out").about == "1.5 left ('a', 'b') False True"


def test_the_help_tells_every_option(mmgen, file):
    code, out, _ = mmgen("-p", file, "data", "spirals", "--help")
    assert code == 0
    assert "Draw points on spirals: where they are, and on which arm." in out
    assert "nobody" not in out
    for told in ("Rows to train on.", "1<=x<=1000000", "default: 50", "left|right", "--no-closed"):
        assert told in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rows", "0"), "'--rows'"),
        (("--turns", "0"), "turns: Input should be greater than 0, not 0.0"),
        (("--hand", "up"), "hand: Input should be 'left' or 'right', not 'up'"),
        (("--arms", "only"), "arms: name at least two, not"),
        (("--arm", "a"), "No such option"),
    ],
    ids=["bound", "open bound", "word", "validator", "unknown"],
)
def test_an_impossible_option_is_one_message_and_nothing_is_written(
    mmgen, file, tmp_path, words, message
):
    code, out, err = mmgen("-p", file, "data", "spirals", "--out", tmp_path / "out", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_a_field_without_a_default_is_an_argument(mmgen, file, tmp_path):
    changed(file, "rows: Annotated[int, Field(ge=1, le=10**6)] = Field(50, ", "rows: int = Field(")
    words = ("-p", file, "data", "spirals")
    assert "Missing argument" in mmgen(*words, "--out", tmp_path / "out")[2]
    assert mmgen(*words, 12, "--out", tmp_path / "out")[0] == 0
    assert read_dataset(tmp_path / "out").splits["train"].count == 12


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (
            "KeyError('lost')",
            "source 'spirals' of plugin {file} failed: KeyError: 'lost' ({file}, ",
        ),
        ("exit(3)", "source 'spirals' of plugin {file} failed: SystemExit: 3"),
        ("open('/no/such/file')", "source 'spirals': /no/such/file: No such file or directory"),
        ("DataError('say this')", "error: say this"),
    ],
    ids=["fault", "exit", "system", "own"],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_source_that_fails_is_named_and_leaves_nothing(
    mmgen, file, tmp_path, raised, message, late
):
    call = raised if "(" in raised and raised.startswith(("exit", "open")) else f"raise {raised}"
    place = "                n = min(20, rows - start)\n" if late else "        import torch\n"
    indent = place[: len(place) - len(place.lstrip())]
    guard = "if start: " if late else ""
    changed(file, place, f"{place}{indent}{guard}{call}\n")
    changed(file, "from mmgen.hooks", "from mmgen.errors import DataError\nfrom mmgen.hooks")
    code, out, err = mmgen("-p", file, "data", "spirals", "--out", tmp_path / "deep" / "out")
    assert (code, out) == (2, "")
    assert message.format(file=file) in err
    assert [path.name for path in tmp_path.iterdir() if "pycache" not in path.name] == [file.name]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return Content(", "return dict(about=", "read() gave dict; give a Content"),
        ('yield {"point"', 'yield 3, {"point"', "a chunk is [3, {"),
        (', "arm": arm.to(torch.uint8)}', "}", "the modalities are point, arm"),
        ("point + (self.shift or 0)", "[1, 2]", "give a dictionary of tensors by modality"),
    ],
)
def test_what_is_no_content_is_told(mmgen, file, tmp_path, old, new, message):
    changed(file, old, new)
    if "dict(" in new:
        changed(file, "            told,\n            {", "            told, a={")
        changed(file, '            {"train"', '            b={"train"')
        changed(file, "            self.rows + 9,\n", "")
    code, _, err = mmgen("-p", file, "data", "spirals", "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_kind_that_no_plugin_provides_is_left_for_the_experiment_to_tell(mmgen, file, tmp_path):
    changed(file, '"kind": "vector"', '"kind": "nobodys"')
    code, _, err = mmgen("-p", file, "data", "spirals", "--out", tmp_path / "out")
    assert code == 0
    assert "no card: " in err
    assert read_dataset(tmp_path / "out").modalities["point"]["kind"] == "nobodys"


def test_a_large_split_is_measured_on_rows_that_are_spread_over_it(monkeypatch):
    from mmgen.data import content
    from mmgen.data.split import Split

    monkeypatch.setattr(content, "SEEN", 8 * 10)
    point = torch.arange(100.0)[:, None].repeat(1, 2)
    rows = {"train": Split(({"point": point},))}
    made = content.fitted({"point": {"kind": "vector", "names": ["x", "y"]}}, rows, load())
    assert made["point"]["mean"] == [45.0, 45.0]  # of 0, 10, … 90


# The contract.

BROKEN = {
    "abstract": ("def read", "def reads", "class Spirals is abstract: it lacks read"),
    "own": ('"spirals"', '"table"', "mmgen data has a table of its own"),
    "undescribed": (', description="Rows to train on."', "", "field rows has no description"),
    "reserved": ("turns: float", "force: float", "--force is an option of mmgen data itself"),
    "untyped": ("shift: float | None", "shift: dict | None", "which no option can be"),
    "impossible": ("Field(50,", "Field('some',", "impossible defaults: "),
    "foreign": ("[Spirals]", "[dict]", "which is no class of Source"),
    "instance": ("return [Spirals]", "return [Spirals()]", "which is no class of Source"),
    "bare": ("return [Spirals]", "return Spirals", "mmgen_sources() must return a list of classes"),
    "outdated": ("ClassVar[int] = 1", "ClassVar[int] = 0", "api_version 0"),
    "raising": ("return [Spirals]", "raise OSError('disk')", "OSError: disk"),
}


def test_a_broken_source_is_a_record_beside_the_healthy_ones(mmgen, site, tmp_path):
    for name, (old, new, _) in BROKEN.items():
        assert old in SPIRALS, name
        text = SPIRALS.replace('"spirals"', f'"{name}"') if "spirals" not in old else SPIRALS
        site.add(name, text.replace(old, new), points(name))
    site.add("spirals", SPIRALS, points("spirals"))
    registry = load(environ={})
    records = fakes(registry)
    for name, (*_, cause) in BROKEN.items():
        assert (records[name].status, records[name].sources) == ("broken", ())
        assert cause in records[name].cause, (name, records[name].cause)
    assert (records["spirals"].status, records["spirals"].sources) == ("ok", ("spirals",))
    assert mmgen("data", "spirals", "--out", tmp_path / "out")[0] == 0
    code, _, err = mmgen("data", "raising", "--out", tmp_path / "out")
    assert code == 2
    assert "broken plugin raising (fake-raising 1.0): OSError: disk" in err


def test_of_two_plugins_with_one_source_neither_wins_and_mmgen_s_own_does(mmgen, site, tmp_path):
    for name in ("first", "second"):
        site.add(name, SPIRALS, f"{name} = fake_{name}\n[mmgen.sources]\nspirals = fake_{name}\n")
    code, _, err = mmgen("data", "spirals", "--out", tmp_path / "out")
    assert code == 2
    assert "kind 'spirals' is also provided by second (fake-second 1.0)" in err
    site.add("other", SPIRALS.replace('"spirals"', '"glyphs"'), points("other"))
    registry = load(environ={})
    assert registry.sources["glyphs"] is Glyphs
    assert "comes with mmgen and is used" in fakes(registry)["other"].cause


def test_a_listed_source_is_shown_without_being_imported(mmgen, site):
    site.add("spirals", SPIRALS, points("spirals"))
    code, out, _ = mmgen("data", "--help")
    assert code == 0
    assert "Of the plugin spirals (fake-spirals 1.0)." in out
    assert "fake_spirals" not in sys.modules
    assert "Did you mean 'spirals'?" in mmgen("data", "spiral")[2]
    assert "fake_spirals" not in sys.modules


def test_of_all_plugins_only_the_one_that_lists_a_word_is_imported(mmgen, site, tmp_path):
    site.add("spirals", SPIRALS, points("spirals"))
    site.add("bystander", "raise SystemExit", points("bystander"))
    assert mmgen("data", "spirals", "--help")[0] == 0
    assert "fake_bystander" not in sys.modules
    assert "fake_spirals" in sys.modules


def test_a_source_that_is_not_listed_is_told(mmgen, site):
    site.add("spirals", SPIRALS)
    [warning] = fakes(load(environ={}))["spirals"].warnings
    assert "source 'spirals' is not found" in warning
    assert '[project.entry-points."mmgen.sources"]' in warning
    assert "No such command 'spirals'" in mmgen("data", "spirals")[2]


def test_a_disabled_source_says_why(mmgen, site, monkeypatch):
    site.add("spirals", SPIRALS, points("spirals"))
    monkeypatch.setenv("MMGEN_PLUGINS", "image")
    code, _, err = mmgen("data", "spirals")
    assert code == 2
    assert "disabled plugin spirals (fake-spirals 1.0): not listed in MMGEN_PLUGINS" in err
    assert "spirals" not in mmgen("data", "--help")[1]


# mmgen's own.


def test_own_sources_come_through_the_hook_and_are_listed():
    own = {cls.kind: cls for cls in mmgen_sources()}
    assert {"glyphs", "mnist", "fashion-mnist", "kmnist"} <= set(own)
    registry = load(environ={})
    assert {kind: registry.sources[kind] for kind in own} == own
    listed = words("mmgen.sources", installed(None))
    assert {word for word, record in listed.items() if record.name == "sources"} == set(own)
    assert registry.source_provider("glyphs").name == "sources"


def test_own_commands_are_the_words_that_no_source_can_have():
    assert {command.callback.__name__ for command in data_app.registered_commands} == set(OWN)


@pytest.mark.parametrize("cls", mmgen_sources(), ids=lambda cls: cls.kind)
def test_every_number_of_an_own_source_has_bounds(cls):
    for option in options(cls):
        if option.type in (int, float):
            assert option.least is not None, option.name
            assert option.most is not None, option.name


HELP = """
import sys
from mmgen.cli.app import main
sys.argv = ["mmgen", *{words}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [m for m in ("torch", "torchvision", "numpy", "matplotlib") if m in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize("words", [["data", "--help"], ["data", "glyphs", "--help"]], ids=str)
def test_the_help_of_sources_imports_nothing_heavy(words):
    code = HELP.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Draw letters and digits" in done.stdout


def test_records_tell_sources_as_json(mmgen):
    records = json.loads(mmgen("plugins", "--json")[1])
    [own] = [record for record in records if record["name"] == "sources"]
    assert "glyphs" in own["sources"]
    assert "sources: glyphs, celeba, mnist" in " ".join(mmgen("plugins")[1].split())


def test_the_contract_s_example_is_one():
    assert issubclass(Glyphs, Source)
    assert Glyphs.model_fields["train"].description
    assert Content("", {}, {}).rows == 0
