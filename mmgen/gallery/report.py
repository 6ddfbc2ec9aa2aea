"""A run as one page to show: what was trained, what it generates, how it learned, what it lacks."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mmgen import build
from mmgen.files.atomic import check_writable, deliver
from mmgen.files.holding import pinned
from mmgen.gallery.html import html
from mmgen.gallery.page import gather, weights_of
from mmgen.run import load


def write_report(
    folder: Path,
    *,
    data: Path | None = None,
    device: str = "auto",
    out: Path | None = None,
    plugin_modules: Sequence[str] = (),
    say: Callable[[str], object] = lambda _: None,
) -> Path:
    """Writes the report of a run: one HTML page that needs no other file, network or script.

    What needs data is left out if the data set is not there; the page then says which is missing.
    How good the run is takes up to a minute on two cores, once: it is kept in the run folder, see
    :mod:`mmgen.evaluation.quality`.
    The same run gives the same page, on one device.

    Args:
        folder: The run.
        data: The data set's folder, if it is no longer where the run was trained on it.
        device: ``auto``, ``cpu``, ``cuda``, ...
        out: The file; ``RUN/report.html`` by default.
        plugin_modules: One-file plugins that the run needs, as with ``mmgen -p``.
        say: Told what takes time.

    Returns:
        The file.

    Raises:
        RunError: If the folder holds no run that was trained, or is no longer where it was.
        WriteError: If the page cannot be written.
    """
    out = out or folder / "report.html"
    check_writable(out)
    with pinned(folder):
        weights = weights_of(folder)
        run = load(folder, weights=weights, device=device, plugin_modules=plugin_modules)
        page = gather(run, build.registry(plugin_modules), weights, data, say=say)
        deliver(out, html(page))
    return out
