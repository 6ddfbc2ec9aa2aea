"""Code of others changes nothing that lasts: each setting is changed, told of and put back."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from mmgen import isolation
from mmgen.isolation import SETTINGS, attempt

# How code of others changes a setting, and a word of what is told of it.
CHANGES = {
    "import sys; sys.setrecursionlimit(5000)": "the recursion limit",
    "import os; os.chdir('/')": "the working directory",
    "import os; os.environ['CUDA_VISIBLE_DEVICES'] = '7'": "variables CUDA_VISIBLE_DEVICES",
    "import os; del os.environ['PATH']": "the environment variables PATH",
    "import sys; sys.path.insert(0, '/nowhere')": "sys.path",
    "import sys; sys.path.clear()": "sys.path",
    "import os; os.umask(0o777)": "the umask",
    "import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8')": "the locale",
    "import warnings; warnings.simplefilter('ignore')": "the warnings filters",
    "import warnings; warnings.resetwarnings()": "the warnings filters",
    "import logging; logging.basicConfig(level=0, force=True)": "the root logger",
    "import logging; logging.disable(50)": "the root logger",
    "import sys; sys.excepthook = print": "the hook excepthook",
    "import threading; threading.excepthook = print": "the hook of threads excepthook",
    "import gc; gc.disable()": "the garbage collector",
    "import gc; gc.set_threshold(1)": "the garbage collector",
    "import signal; signal.pthread_sigmask(0, [2])": "which signals are blocked",
    "import signal; signal.alarm(100)": "the alarm clock",
    "import multiprocessing as m; m.set_start_method('spawn', force=True)": "how processes start",
    "import random; random.seed(1)": "Python's random numbers",
    "import numpy; numpy.random.seed(1)": "numpy's random numbers",
    "import numpy; numpy.seterr(all='raise')": "numpy's handling of errors: ",
    "torch.manual_seed(1)": "torch's random numbers",
    "torch.rand(1)": "torch's random numbers",
    "torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "torch.set_default_device('meta')": "torch's default device",
    "torch.set_grad_enabled(False)": "torch's gradient mode",
    "torch.held = torch.inference_mode(); torch.held.__enter__()": "torch's inference mode",
    "torch.autograd.set_detect_anomaly(True)": "torch's anomaly mode",
    "torch.set_num_threads(2)": "torch's threads",
    "torch.set_float32_matmul_precision('medium')": "torch's float32 precision",
    "torch.backends.cuda.matmul.allow_tf32 = True": "torch's ",
    "torch.set_autocast_enabled('cpu', True)": "torch's autocast",
    "torch.use_deterministic_algorithms(True)": "torch's deterministic algorithms",
    "torch.use_deterministic_algorithms(True, warn_only=True)": "torch's deterministic algorithms",
    "torch.set_flush_denormal(True)": "how denormal numbers are rounded",
    "torch.backends.cudnn.benchmark = True": "torch's backends.cudnn.benchmark",
    "torch.backends.cudnn.deterministic = True": "torch's backends.cudnn.deterministic",
    "torch.backends.cudnn.enabled = False": "torch's backends.cudnn.enabled",
    "torch.backends.cudnn.allow_tf32 = False": "torch's backends.cudnn",
    "torch.distributions.Distribution.set_default_validate_args(False)": "torch's distributions",
    "import signal; signal.signal(2, signal.SIG_IGN)": "the handler of SIGINT",
    "import signal; signal.signal(15, print)": "the handler of SIGTERM",
    "import sys, io; sys.stdout = io.StringIO()": "sys.stdout",
    "import sys; sys.stderr = None": "sys.stderr",
}


def state() -> dict[str, object]:
    """Returns the value of every setting, and of what is kept beside the table."""
    values = {setting.name: setting.get() for setting in SETTINGS}
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr", "__stdout__")}
    return {**values, "handlers": handlers, "streams": streams}


@pytest.mark.parametrize("code", CHANGES)
def test_what_is_changed_is_told_and_put_back(code):
    before = state()
    done = attempt(lambda: exec(code, {"torch": torch}))
    after = state()
    if "sys.path.insert" in code:  # what was added stays, where it hides nothing
        assert sys.path.pop() == "/nowhere"
    assert done.error is None
    for setting in SETTINGS:
        values = after.pop(setting.name), before.pop(setting.name)
        assert not setting.matters(*values), (setting.name, *values)
    assert after == before  # handlers and streams
    told = [change.note("at import") for change in done.changes]
    assert [words for words in told if CHANGES[code] in words], told
    assert all(words.endswith(" at import; put back") for words in told)


def test_every_setting_of_the_table_is_proved():
    left = [s.name for s in SETTINGS if not any(s.name in words for words in CHANGES.values())]
    assert left == ["torch's threads between operations"]  # which torch lets nobody set twice


def test_what_cannot_be_put_back_is_told():
    code = (
        "from mmgen.isolation import attempt\nimport torch\n"
        "done = attempt(lambda: torch.set_num_interop_threads(3))\n"
        "print(done.changes[0].note('at import'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "changes torch's threads between operations at import; this cannot be put back\n"
    )


CLOSING = ("sys.stdout.close()", "os.close(1)", "os.close(2)", "sys.stderr.close()", "both()")


@pytest.mark.parametrize("code", CLOSING)
def test_streams_that_are_closed_are_opened_again(code):
    script = f"""
import os, sys
from mmgen.isolation import attempt
def both():
    sys.stdout.close(); sys.__stdout__.close(); os.close(1); os.close(2)
done = attempt(lambda: {code})
assert done.error is None, done.error
print("a result", flush=True)
print("a note", done.changes, file=sys.stderr, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a result\n"
    assert done.stderr.startswith("a note (Change(what='sys.")


def test_filters_for_one_library_s_warnings_and_harmless_code_are_no_news():
    code = "import warnings; warnings.filterwarnings('ignore', message='of mine', module='mine')"
    before = state()["the warnings filters"]
    try:
        assert attempt(lambda: exec(code)).changes == ()
    finally:
        import warnings

        assert tuple(warnings.filters[1:]) == before
        del warnings.filters[0]
    assert attempt(lambda: torch.nn.Linear(2, 2)).changes[0].what == "torch's random numbers"
    changes: list[isolation.Change] = []
    with isolation.kept(changes, numbers=False):
        torch.nn.Linear(2, 2)
    assert changes == []


def test_no_library_is_imported_for_its_settings():
    code = (
        "import sys\nfrom mmgen.isolation import attempt\nassert attempt(lambda: 3).value == 3\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, StopIteration]
)
def test_whatever_is_raised_is_an_outcome(error):
    def call():
        raise error

    done = attempt(call)
    assert (done.value, type(done.error)) == (None, error)


@pytest.mark.parametrize("swallowed", ["nothing", "KeyboardInterrupt", "BaseException"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_the_same(swallowed, number):
    def stop(*_):
        raise KeyboardInterrupt

    def call():
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        except {"nothing": (), "KeyboardInterrupt": KeyboardInterrupt}.get(
            swallowed, BaseException
        ):
            return 3

    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            attempt(call)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


def test_threads_other_than_the_main_one_may_attempt_too():
    done = []
    thread = threading.Thread(target=lambda: done.append(attempt(torch.get_num_threads)))
    thread.start()
    thread.join()
    assert done[0].error is None


def test_what_is_printed_is_no_part_of_a_result(capsys):
    attempt(lambda: print("a banner"))
    assert capsys.readouterr() == ("", "a banner\n")
