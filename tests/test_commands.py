"""Commands of plugins: verbs of the command line that are listed unseen and imported when typed."""

import subprocess
import sys

import pytest
import typer
from test_plugins import Site, fakes

from mmgen.cli.app import app
from mmgen.command import OWN, Command
from mmgen.registry.discovery import installed, words
from mmgen.registry.loading import load

ECHO = '''
"""Commands in a file."""
import sys
import typer
from mmgen.command import Command
from mmgen.hooks import hookimpl

echo = typer.Typer(no_args_is_help=True)

@echo.command()
def words(context: typer.Context, count: int) -> None:
    """Print words."""
    typer.echo(f"{count} {context.obj.plugins}")

@echo.command()
def fail() -> None:
    """Fail."""
    from mmgen.errors import DataError
    raise DataError("no words there")

def shout(word: str, loud: bool = False) -> None:
    """Print a word.

    In large letters if it is loud.
    """
    typer.echo(word.upper() if loud else word)

@hookimpl
def mmgen_commands():
    return [Command("echo", "Print things.", echo), Command("shout", "Print a word.", shout)]
'''
LISTED = "echo = fake_echo\n\n[mmgen.commands]\necho = fake_echo\nshout = fake_echo\n"


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
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    return path


def test_an_app_and_a_function_are_commands(mmgen, file):
    assert mmgen("-p", file, "echo", "words", 3) == (0, f"3 ['{file}']\n", "")
    assert mmgen("-p", file, "shout", "hey", "--loud") == (0, "HEY\n", "")


def test_the_help_of_a_command_is_its_own(mmgen, file):
    code, out, _ = mmgen("-p", file, "echo", "--help")
    assert code == 0
    assert "Usage: mmgen echo" in out
    assert "Print words." in out
    code, out, _ = mmgen("-p", file, "shout", "--help")
    assert code == 0
    assert "Usage: mmgen shout" in out
    assert "In large letters if it is loud." in out


def test_what_a_command_raises_is_one_message_or_a_fault(mmgen, file):
    code, out, err = mmgen("-p", file, "echo", "fail")
    assert (code, out, err) == (2, "", "error: no words there\n")
    assert mmgen("-p", file, "echo", "words", "many")[0] == 2
    code, _, err = mmgen("-p", file, "echo", "sing")
    assert code == 2
    assert "No such command 'sing'" in err
    assert "See: mmgen echo --help" in err


def test_an_installed_command_is_listed_without_an_import_and_loads_alone(mmgen, site):
    site.add("echo", ECHO, LISTED)
    site.add("bystander", "raise SystemExit")
    code, out, _ = mmgen("--help")
    assert code == 0
    listed = " ".join(out.split())
    assert "Commands of plugins" in listed
    assert "echo Of the plugin echo (fake-echo 1.0)." in listed
    assert "fake_echo" not in sys.modules
    assert "Did you mean 'echo'" in mmgen("ecko")[2]
    assert "fake_echo" not in sys.modules
    assert mmgen("echo", "words", 1) == (0, "1 []\n", "")
    assert "fake_bystander" not in sys.modules
    assert fakes(load(environ={}))["echo"].commands == ("echo", "shout")


BROKEN = {
    "own": ('"shout"', '"train"', "command 'train' is one of mmgen's own"),
    "named": ('"shout"', '"Shout Out"', "command 'Shout Out': a name is made of"),
    "helpless": ('"Print a word."', '" "', "command 'shout' has no help"),
    "thing": ('"Print a word.", shout', '"Print.", 3', "a typer app or a function, not 3"),
    "foreign": ("[Command(", "[echo, Command(", "mmgen_commands() returns <typer.main.Typer"),
    "bare": ("return [Command", "return 3 or [Command", "must return a list of commands, not 3"),
    "empty": ("return [Command", "return [] and [Command", "mmgen_commands() returns no command"),
    "twice": ('"shout"', '"echo"', "returns name 'echo' twice"),
    "raising": ("return [Command", "1 / 0; return [Command", "ZeroDivisionError: division by zero"),
    "importing": ("import sys", "import no_such_library", "No module named 'no_such_library'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_command_is_a_record_and_harms_no_other(mmgen, site, name):
    old, new, cause = BROKEN[name]
    assert old in ECHO
    text = ECHO.replace(old, new).replace('"echo"', f'"{name}"')
    points = f"{name} = fake_{name}\n\n[mmgen.commands]\n{name} = fake_{name}\n"
    site.add(name, text.replace("name 'echo'", f"name '{name}'"), points)
    record = fakes(load(environ={}))[name]
    assert (record.status, record.commands) == ("broken", ())
    assert cause.replace("name 'echo'", f"name '{name}'") in record.cause
    code, _, err = mmgen(name)
    assert code == 2
    assert f"broken plugin {name} (fake-{name} 1.0): " in err
    assert mmgen("--help")[0] == 0
    assert mmgen("train", "--help")[0] == 0


def test_mmgen_s_own_verb_is_never_another_s(mmgen, site):
    points = "echo = fake_echo\n\n[mmgen.commands]\ntrain = fake_echo\n"
    site.add("echo", ECHO.replace('"echo"', '"train"'), points)
    out = mmgen("--help")[1]
    assert "Of the plugin echo" not in out
    assert "Usage: mmgen train" in mmgen("train", "--help")[1]
    assert "fake_echo" not in sys.modules


def test_of_two_plugins_with_one_command_neither_wins(mmgen, site):
    for name in ("first", "second"):
        listed = f"{name} = fake_{name}\n[mmgen.commands]\necho = fake_{name}\n"
        site.add(name, ECHO, listed)
    code, _, err = mmgen("echo")
    assert code == 2
    assert "command 'echo' is also provided by second (fake-second 1.0); neither is used" in err


def test_a_command_that_is_not_listed_is_told(mmgen, site):
    site.add("echo", ECHO, "echo = fake_echo\n\n[mmgen.commands]\necho = fake_echo\n")
    [warning] = fakes(load(environ={}))["echo"].warnings
    assert "command 'shout' is not found" in warning
    assert '[project.entry-points."mmgen.commands"]' in warning
    assert "No such command 'shout'" in mmgen("shout")[2]


def test_a_listed_command_that_is_not_there_is_told(mmgen, site):
    site.add("echo", ECHO, LISTED.replace("shout", "whisper"))
    code, _, err = mmgen("whisper")
    assert code == 2
    assert "whisper" in err


def test_plugins_show_commands(mmgen, file):
    assert "commands: echo, shout" in mmgen("-p", file, "plugins")[1]


def test_own_verbs_are_those_that_no_plugin_can_have():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups}
    assert names == set(OWN)


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


@pytest.mark.parametrize(
    "words", [["--help"], ["reproduce", "--help"], ["reproduce", "mnist", "--help"]], ids=str
)
def test_the_paper_s_experiments_come_through_the_hook_and_their_help_imports_nothing_heavy(words):
    code = HELP.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout
    if words[0] == "reproduce":
        assert "Usage: mmgen reproduce" in done.stdout
    else:
        assert "Reproduce the paper's tables and figures." in done.stdout


def test_a_command_is_equal_to_itself_alone():
    first, second = typer.Typer(), typer.Typer()
    assert Command("a", "b", first) == Command("a", "b", first)
    assert Command("a", "b", first) != Command("a", "b", second)


def test_nothing_is_listed_twice():
    assert not set(words("mmgen.commands", installed(None))) & set(OWN)
