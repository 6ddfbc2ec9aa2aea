"""The loader: every way in which a plugin breaks, beside a healthy one."""

import importlib
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen import build
from mmgen.errors import ConfigError, PluginError
from mmgen.registry import loading
from mmgen.registry.discovery import Record, first_party
from mmgen.registry.loading import Registry, load

GOOD = """
from typing import ClassVar
from pydantic import field_validator
from torch import nn
from mmgen.hooks import hookimpl
from mmgen.modality import Modality

class {name}(Modality):
    kind: ClassVar[str] = "{kind}"
    api_version: ClassVar[int] = 1
    width: int = 3

    @field_validator("width")
    @classmethod
    def positive(cls, width):
        if width == 13:
            raise KeyError("thirteen")
        if width < 1:
            raise ValueError("Width must be at least 1")
        return width

    @property
    def shape(self):
        return (self.width,)

    def encoder(self):
        return nn.Identity()

    def decoder(self, in_features):
        return nn.Identity()
"""
HOOK = """
@hookimpl
def mmgen_modalities():
    return [{name}]
"""


def source(kind: str, hook: str = HOOK, name: str = "Tone") -> str:
    return GOOD.format(name=name, kind=kind) + hook.format(name=name)


def changed(kind: str, old: str, new: str) -> str:
    text = source(kind)
    assert old in text
    return text.replace(old, new)


VERSION = "    api_version: ClassVar[int] = 1\n"
# name: (module's text, what its record's cause must say)
BROKEN = {
    "interrupting": ("raise KeyboardInterrupt('mine')\n", "KeyboardInterrupt: mine"),
    "speechless": (
        "class E(Exception):\n    def __str__(self): 1 / 0\n    __repr__ = __str__\nraise E\n",
        "E: (its message cannot be read: ZeroDivisionError)",
    ),
    "lying": (
        "class E(Exception):\n    __class__ = __traceback__ = property(lambda e: 1 / 0)\nraise E\n",
        "E: ",
    ),
    "garrulous": ("raise ValueError('word ' * 2_000_000)\n", "ValueError: word word"),
    "grouped": (
        "raise BaseExceptionGroup('all', [KeyError('one'), KeyboardInterrupt()])\n",
        "all (2 sub-exceptions); the first is KeyError: 'one'",
    ),
    "generating": (
        source("generating", HOOK.replace("return [{name}]", "yield {name}")),
        "must return a list of classes, not <generator object",
    ),
    "recursing": (
        source("recursing", HOOK.replace("return [{name}]", "return mmgen_modalities()")),
        "RecursionError",
    ),
    "endless": (
        source("endless", HOOK.replace("return [{name}]", "return iter(int, 1)")),
        "must return a list of classes, not <callable_iterator",
    ),
    "descriptor": (
        changed("descriptor", 'kind: ClassVar[str] = "descriptor"', "kind = property(len)"),
        "has kind <property object",
    ),
    "flagged": (
        changed("flagged", VERSION, VERSION + "    multi_column = None\n"),
        "multi_column = None",
    ),
    "from_examples": (
        changed(
            "from_examples",
            VERSION,
            VERSION + "    from_examples = classmethod(lambda cls: exit(3))\n",
        ),
        "SystemExit: 3",
    ),
    "absent": (None, "ModuleNotFoundError: No module named 'fake_absent'"),
    "importing": ("import no_such_library\n", "No module named 'no_such_library'"),
    "syntax": ("def f(:\n", "SyntaxError"),
    "leaving": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "panicking": (
        "class Panic(BaseException): pass\nraise Panic('of a Rust extension')\n",
        "Panic: of a Rust extension",
    ),
    "misspelt": (
        source("misspelt", HOOK.replace("mmgen_modalities", "mmgen_modalites")),
        "unknown hook 'mmgen_modalites'",
    ),
    "hookless": (
        source("hookless", ""),
        "no function such as mmgen_modalities() marked @hookimpl",
    ),
    "unmarked": (source("unmarked", HOOK.replace("@hookimpl", "")), "marked @hookimpl"),
    "arguments": (
        source("arguments", HOOK.replace("modalities()", "modalities(config)")),
        "config",
    ),
    "raising": (
        source("raising", HOOK.replace("return [{name}]", "raise OSError('disk\\nfull')")),
        "OSError: disk full",
    ),
    "nothing": (source("nothing", HOOK.replace("return [{name}]", "pass")), "not None"),
    "bare": (source("bare", HOOK.replace("[{name}]", "{name}")), "must return a list of classes"),
    "empty": (source("empty", HOOK.replace("[{name}]", "[]")), "returns no class"),
    "twice": (source("twice", HOOK.replace("[{name}]", "[{name}, {name}]")), "'twice' twice"),
    "foreign": (source("foreign", HOOK.replace("[{name}]", "[dict]")), "no class of Modality"),
    "instance": (source("instance", HOOK.replace("{name}]", "{name}()]")), "no class of Modality"),
    "abstract": (
        changed("abstract", "def encoder(self)", "def encode(self)"),
        "class Tone is abstract: it lacks encoder",
    ),
    "unversioned": (changed("unversioned", VERSION, ""), "does not declare api_version"),
    "outdated": (changed("outdated", VERSION, VERSION.replace("1", "0")), "api_version 0"),
    "textual": (changed("textual", VERSION, VERSION.replace("1", "'1'")), "api_version '1'"),
    "truthful": (changed("truthful", VERSION, VERSION.replace("1", "True")), "api_version True"),
    "kindless": (
        changed("kindless", '    kind: ClassVar[str] = "kindless"\n', ""),
        "does not declare kind",
    ),
    "shouting": (changed("shouting", '"shouting"', '"Loud Kind"'), "kind 'Loud Kind'"),
    "numeric": (changed("numeric", '"numeric"', "7"), "kind 7"),
    "impossible": (
        changed("impossible", "width: int = 3", "width: int = 'three'"),
        "class Tone has impossible defaults: width: Input should be a valid integer",
    ),
    "field": (changed("field", VERSION, "    api_version: int = 1\n"), "api_version"),
}


class Site:
    """A folder of fake distributions on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, text: str | None, points: str | None = None) -> None:
        if text is not None:
            (self.folder / f"fake_{name}.py").write_text(text)
        info = self.folder / f"fake_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-{name}\nVersion: 1.0\n")
        points = points if points is not None else f"{name} = fake_{name}\n"
        (info / "entry_points.txt").write_text(f"[mmgen]\n{points}")
        importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith(("fake_", "mmgen_file_")):
            del sys.modules[name]


def fakes(registry: Registry) -> dict[str, Record]:
    return {r.name: r for r in registry.records if (r.distribution or "").startswith("fake-")}


def test_every_broken_plugin_is_a_record_beside_the_healthy_one(site):
    for name, (text, _) in BROKEN.items():
        site.add(name, text)
    site.add("healthy", source("healthy"))
    registry = load(environ={})
    records = fakes(registry)
    assert set(records) == {*BROKEN, "healthy"}
    for name, (_, cause) in BROKEN.items():
        record = records[name]
        assert (record.status, record.kinds) == ("broken", ()), name
        assert cause in record.cause, (name, record.cause)
        assert "\n" not in record.cause
        assert len(record.cause) < 1000
        assert len(record.traceback) < 100_000
        assert re.match("Traceback|  File|  . Exception", record.traceback), (name, record)
        assert (record.distribution, record.version) == (f"fake-{name}", "1.0")
    healthy = Record("healthy", "fake-healthy", "1.0", "ok", ("healthy",))
    assert records["healthy"] == healthy
    assert registry.provider("healthy") == healthy
    assert str(healthy) == "healthy (fake-healthy 1.0)"
    assert registry.create("x", {"kind": "healthy", "width": 4}).shape == (4,)


def test_a_cause_names_the_line_that_broke(site):
    site.add("deep", "x = 1\ny = x / 0\n")
    cause = fakes(load(environ={}))["deep"].cause
    assert cause.startswith("ZeroDivisionError: division by zero")
    assert cause.endswith(f"({site.folder / 'fake_deep.py'}, line 2)")


@pytest.mark.parametrize("swallowing", [False, True])
def test_ctrl_c_stops_mmgen_whatever_a_plugin_makes_of_it(site, swallowing):
    lines = ["import os, signal, time", "try:"]
    lines += ["    os.kill(os.getpid(), signal.SIGINT)", "    time.sleep(1)"]
    lines += ["except BaseException:", "    pass" if swallowing else "    raise"]
    site.add("slow", "\n".join(lines) + "\n" + source("slow"))
    with pytest.raises(KeyboardInterrupt):
        load(environ={})


CHANGING = """
import os, sys, torch, warnings
torch.set_default_dtype(torch.float64)
torch.manual_seed(20_031)
os.chdir("/")
print("welcome!")
warnings.filterwarnings("ignore", module="fake_changing")
"""


def test_what_a_plugin_changes_at_import_is_put_back_and_told(site, capsys):
    site.add("changing", CHANGING + source("changing"))
    site.add("quiet", source("quiet"))
    before = torch.get_default_dtype(), Path.cwd(), torch.get_rng_state().tolist()
    registry = load(environ={})
    assert before == (torch.get_default_dtype(), Path.cwd(), torch.get_rng_state().tolist())
    record = fakes(registry)["changing"]
    assert (record.status, record.kinds) == ("ok", ("changing",))
    assert record.warnings == (
        "changes the working directory at import; put back",
        "changes torch's random numbers at import; put back",
        "changes torch's default dtype at import; put back",
    )
    assert {r.name: r.warnings for r in registry.records if r is not record and r.warnings} == {}
    assert capsys.readouterr() == ("", "welcome!\n")


def test_the_plugin_that_takes_long_to_import_is_named(site, monkeypatch, capsys):
    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    site.add("long", "import time\ntime.sleep(0.5)\n" + source("long"))
    site.add("short", source("short"))
    load(environ={})
    assert capsys.readouterr().err == "still importing plugin long (fake-long 1.0) ...\n"


def test_entry_points_that_cannot_be_read_hide_no_other(site):
    site.add("good", source("good"))
    site.add("garbled", None)
    file = site.folder / "fake_garbled-1.0.dist-info" / "entry_points.txt"
    file.write_bytes(b"[mmgen]\n\xff = fake\n")
    registry = load(environ={})
    assert "good" in registry.kinds
    [record] = [r for r in registry.records if r.distribution == "fake-garbled"]
    assert (record.name, record.status) == ("entry_points.txt", "broken")


def own(site, name: str, kind: str) -> None:
    """Adds a plugin to the distribution that provides mmgen itself."""
    (site.folder / f"fake_{name}.py").write_text(source(kind))
    info = site.folder / "fake_mmgen-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-mmgen\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mmgen]\n{name} = fake_{name}\n")
    (info / "RECORD").write_text("mmgen/registry/discovery.py,,\n")
    (site.folder / "mmgen").symlink_to(Path(loading.__file__).parents[1])


def test_of_two_plugins_of_one_kind_mmgen_s_own_wins(site, tmp_path):
    own(site, "ours", "tone")
    more = source("tone", "") + "class Noise(Tone):\n    kind: ClassVar[str] = 'noise'\n"
    site.add("loser", more + HOOK.format(name="Tone, Noise"))
    (tmp_path / "mine.py").write_text(source("tone"))
    registry = load([str(tmp_path / "mine.py")], environ={})
    records = {r.name: r for r in registry.records}
    assert registry.provider("tone") == records["ours"]
    assert (records["ours"].status, records["ours"].cause) == ("ok", "")
    assert registry.create("x", {"kind": "tone"}).shape == (3,)
    for name in ("loser", str(tmp_path / "mine.py")):
        assert records[name].status == "broken"
        assert "kind 'tone' is also provided by ours (fake-mmgen 1.0)" in records[name].cause
        assert "comes with mmgen and is used" in records[name].cause
    assert registry.provider("noise") == records["loser"]  # what nobody disputes stays
    # The way to the other one that the cause names:
    registry = load([str(tmp_path / "mine.py")], environ={"MMGEN_PLUGINS": "ours2"})
    assert registry.provider("tone").name == str(tmp_path / "mine.py")


def test_mmgen_s_own_plugins_are_known_by_the_distribution_they_are_in(tmp_path, monkeypatch):
    [image] = [r for r in load(environ={}).records if r.kinds == ("image",)]
    assert first_party(image)
    assert not first_party(replace(image, distribution=None))  # named by hand
    assert not first_party(replace(image, distribution="pluggy"))
    assert not first_party(replace(image, distribution="no-such-distribution"))
    # Installed editable, from the folder around this very package; or from another.
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, folder, expected in (
        ("here", Path(loading.__file__).resolve().parents[2], True),
        ("there", tmp_path, False),
    ):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        url = json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}})
        (info / "direct_url.json").write_text(url)
        importlib.invalidate_caches()
        assert first_party(replace(image, distribution=name)) is expected


def test_an_object_among_the_modules_that_breaks_harms_no_file(site, tmp_path, monkeypatch):
    class Evil:
        @property
        def __dict__(self):
            raise RuntimeError("no")

    monkeypatch.setitem(sys.modules, "fake_evil", Evil())
    (tmp_path / "mine.py").write_text(source("mine"))
    assert load([str(tmp_path / "mine.py")], environ={}).records[-1].status == "ok"


def test_the_way_that_an_unknown_kind_s_message_names_works(mmgen, tmp_path):
    file = tmp_path / "my tone.py"
    file.write_text(source("tone").replace("return nn.Identity()", "return 1 / 0", 1))
    with pytest.raises(PluginError, match=re.escape("mmgen -p FILE.py ...")):
        load(environ={}).get("tone")
    registry = load([str(file)], environ={})
    with pytest.raises(PluginError) as caught:
        build._probe("x", registry.create("x", {"kind": "tone", "width": 2}), registry)
    told = str(caught.value).partition("\nTry: ")[2]
    assert told == f"mmgen -p '{file}' plugins check tone"
    _, out, err = mmgen(*shlex.split(told)[1:])
    assert "no plugin provides" not in err
    assert out.startswith("modality tone\n")


def test_what_nets_change_when_they_are_built_is_put_back_and_told(site, capsys):
    text = source("changing").replace(
        "return nn.Identity()",
        "torch.set_default_dtype(torch.float64); torch.manual_seed(1); return nn.Identity()",
        1,
    )
    site.add("changing", "import torch\n" + text)
    registry = load(environ={})
    before = torch.get_rng_state().tolist()
    build._probe("x", registry.create("x", {"kind": "changing"}), registry)
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_rng_state().tolist() == before
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2
    for note in notes:
        assert note.startswith(
            "note: modalities.x: kind 'changing' of plugin changing (fake-changing 1.0) changes "
        )
        assert note.endswith("Try: mmgen plugins check changing")


@pytest.mark.parametrize("raised", ["SystemExit(0)", "KeyboardInterrupt", "1 / 0"])
def test_nets_that_cannot_be_built_are_named_whatever_they_raise(site, raised):
    raising = f"raise {raised}" if "/" not in raised else raised
    site.add("raising", source("raising").replace("return nn.Identity()", raising, 1))
    registry = load(environ={})
    with pytest.raises(
        PluginError, match=r"nets of kind 'raising' of plugin raising \(fake-raising"
    ):
        build._probe("x", registry.create("x", {"kind": "raising"}), registry)


@pytest.mark.parametrize("raised", ["SystemExit(0)", "KeyboardInterrupt"])
def test_settings_that_make_a_plugin_leave_are_an_error_that_names_it(site, raised):
    site.add("leaving", source("leaving").replace('raise KeyError("thirteen")', f"raise {raised}"))
    with pytest.raises(PluginError, match=r"leaving \(fake-leaving 1.0\) failed on these settings"):
        load(environ={}).create("x", {"kind": "leaving", "width": 13})


def test_warnings_are_listed_and_in_json(mmgen, tmp_path):
    file = tmp_path / "changing.py"
    file.write_text("import sys\nsys.setrecursionlimit(9999)\n" + source("changing"))
    warning = "changes the recursion limit at import; put back"
    code, out, _ = mmgen("-p", file, "plugins")
    assert code == 0
    assert f"{file}: {warning}" in out.splitlines()
    records = {r["name"]: r for r in json.loads(mmgen("-p", file, "plugins", "--json")[1])}
    assert records[str(file)]["warnings"] in ([], [warning])  # imported once in a process
    assert all(records[kind]["warnings"] == [] for kind in ("image", "label", "vector"))


def test_an_unknown_kind_lists_kinds_nearest_name_and_broken_plugins_with_causes(site):
    site.add("tones", source("tone"))
    site.add("importing", "import no_such_library\n")
    with pytest.raises(PluginError) as caught:
        load(environ={}).create("melody", {"kind": "tune"})
    message = str(caught.value)
    assert "modalities.melody.kind: no plugin provides modality kind 'tune'" in message
    assert "did you mean 'tone'?" in message
    assert "kinds: " in message
    assert "broken plugin importing (fake-importing 1.0): ModuleNotFoundError" in message
    assert "no_such_library" in message


def test_of_two_plugins_of_one_kind_neither_wins(site):
    both = (
        source("tone", "")
        + "class Noise(Tone):\n    kind: ClassVar[str] = 'noise'\n"
        + HOOK.format(name="Tone, Noise")
    )
    site.add("first", both)
    site.add("second", source("tone"))
    site.add("third", source("other"))
    registry = load(environ={})
    records = fakes(registry)
    assert "tone" not in registry.kinds
    assert records["first"].status == records["second"].status == "broken"
    assert "kind 'tone' is also provided by second (fake-second 1.0)" in records["first"].cause
    assert "kind 'tone' is also provided by first (fake-first 1.0)" in records["second"].cause
    # What nobody disputes stays.
    assert registry.provider("noise") == records["first"]
    assert (records["first"].kinds, records["second"].kinds) == (("noise",), ())
    assert registry.provider("other").status == "ok"
    with pytest.raises(PluginError, match="neither is used"):
        registry.get("tone")
    # The way out that the message names:
    registry = load(environ={"MMGEN_PLUGINS": "second,third"})
    assert registry.provider("tone").name == "second"


def test_the_allow_list_disables_what_it_does_not_list(site):
    site.add("first", source("first"))
    site.add("bad", "1 / 0\n")
    site.add("late", "raise AssertionError('must not be imported')\n")
    registry = load(environ={"MMGEN_PLUGINS": "first, bad,lste"})
    records = fakes(registry)
    assert {name: r.status for name, r in records.items()} == {
        "first": "ok",
        "bad": "broken",
        "late": "disabled",
    }
    assert "MMGEN_PLUGINS=first, bad,lste" in records["late"].cause
    assert list(registry.kinds) == ["first"]
    [unknown] = [r for r in registry.records if r.name == "lste"]
    assert unknown.status == "broken"
    assert "did you mean 'late'?" in unknown.cause
    with pytest.raises(PluginError, match="disabled plugin late"):
        registry.get("late")
    assert not load(environ={"MMGEN_PLUGINS": ""}).kinds


def test_one_distribution_may_have_several_entry_points_and_the_order_is_fixed(site):
    (site.folder / "fake_b2.py").write_text(source("two"))
    site.add("b", source("one"), "z = fake_b\ny = fake_b2\n")
    site.add("a", source("zero"))
    registry = load(environ={})
    assert list(fakes(registry)) == ["a", "y", "z"]
    assert load(environ={}).records == registry.records
    assert {r.distribution for n, r in fakes(registry).items() if n != "a"} == {"fake-b"}
    assert list(registry.kinds) == sorted(registry.kinds)


def test_a_damaged_distribution_hides_no_other(site):
    site.add("good", source("good"))
    site.add("damaged", "", points="this is no entry point\n")
    (site.folder / "nameless-1.dist-info").mkdir()
    (site.folder / "nameless-1.dist-info" / "entry_points.txt").write_text(
        "[mmgen]\nnameless = fake_good\n"
    )
    registry = load(environ={})
    assert "good" in registry.kinds  # twice the very same class: no conflict
    broken = [r for r in registry.records if r.distribution == "fake-damaged"]
    assert [(r.name, r.status) for r in broken] == [("entry_points.txt", "broken")]
    [nameless] = [r for r in registry.records if r.name == "nameless"]
    assert (nameless.distribution, nameless.version, nameless.status) == (None, None, "ok")


def test_plugins_named_by_hand_are_modules_and_files(site, tmp_path):
    (site.folder / "fake_module.py").write_text(source("by-module"))
    file = tmp_path / "my tone.py"
    file.write_text(source("by-file"))
    modules = ["fake_module", str(file), "fake_missing", str(tmp_path / "gone.py")]
    registry = load(modules, environ={"MMGEN_PLUGINS": ""})
    records = {r.name: r for r in registry.records}
    assert [records[m].status for m in modules] == ["ok", "ok", "broken", "broken"]
    assert registry.provider("by-file").name == str(file)
    assert records["fake_missing"].distribution is None
    with pytest.raises(PluginError) as caught:
        registry.get("by-hand")
    assert "broken plugin fake_missing: ModuleNotFoundError" in str(caught.value)
    assert "gone.py: FileNotFoundError" in str(caught.value)
    # A file that is loaded again, or twice, is no conflict with itself.
    again = load([str(file), str(file)], environ={"MMGEN_PLUGINS": ""})
    assert again.get("by-file") is registry.get("by-file")
    # Its class can be found by name, as pickling and inspection do.
    cls = registry.get("by-file")
    assert sys.modules[cls.__module__].Tone is cls


def test_a_file_that_breaks_leaves_no_module_behind(tmp_path):
    file = tmp_path / "half.py"
    file.write_text("x = 1\nraise RuntimeError('half-way')\n")
    record = load([str(file)], environ={"MMGEN_PLUGINS": ""}).records[-1]
    assert "half-way" in record.cause
    assert not [name for name in sys.modules if "half_py" in name]


def test_a_registry_does_not_change(site):
    site.add("healthy", source("healthy"))
    registry = load(environ={})
    with pytest.raises(TypeError):
        registry.kinds["other"] = registry.get("healthy")
    with pytest.raises(AttributeError):
        registry.kinds = {}


def test_a_registry_made_by_hand_names_the_class_s_module(site):
    (site.folder / "fake_module.py").write_text(source("toy"))
    module = importlib.import_module("fake_module")
    assert Registry((), {"toy": module.Tone}).provider("toy").name == "fake_module"


def test_impossible_settings_name_their_key_and_what_is_known(site):
    site.add("tones", source("tone"))
    registry = load(environ={})
    with pytest.raises(ConfigError) as caught:
        registry.create("melody", {"kind": "tone", "widht": 3, "width": "wide"})
    message = str(caught.value)
    assert "modalities.melody.widht: unknown key; did you mean 'width'?" in message
    assert "modalities.melody.width: Input should be a valid integer" in message
    assert "settings of kind 'tone' of plugin tones (fake-tones 1.0): " in message
    assert message.endswith("width")
    with pytest.raises(ConfigError, match=r"melody\.width: Width must be at least 1, not 0"):
        registry.create("melody", {"kind": "tone", "width": 0})
    with pytest.raises(ConfigError, match=r"modalities\.melody\.kind must be one of .*tone"):
        registry.create("melody", {"width": 3})
    with pytest.raises(
        PluginError, match=r"tones \(fake-tones 1.0\) failed .* KeyError: 'thirteen'"
    ):
        registry.create("melody", {"kind": "tone", "width": 13})


def test_first_party_modalities_come_through_the_same_door():
    modules = ("mmgen_image", "mmgen_label", "mmgen_attributes", "mmgen_vector")
    registry = load(modules, environ={})
    assert {"image", "label", "attributes", "vector"} <= set(registry.kinds)
    assert [r.status for r in registry.records if r.name in modules] == ["ok"] * 4
    with pytest.raises(ConfigError, match=r"modalities\.photo\.hieght: unknown key.*'height'"):
        registry.create("photo", {"kind": "image", "hieght": 3})
