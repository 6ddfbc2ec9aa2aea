"""An epoch in one line of 80 columns, however many terms there are and what they are called."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mmgen.console import styled
from mmgen.objective import MODEL
from mmgen.terminal import printable

if TYPE_CHECKING:
    from mmgen.objective import Term
    from mmgen.training.loop import Epoch

WIDTH = 80
LONGEST = 12
"""Of a term's name; the rest is cut off."""


def legend(validated: bool) -> Text:
    """Says once what the lines hold."""
    losses = "loss in training / validation" if validated else "loss in training"
    return styled((f"each line: {losses} and its terms, in nats; rows/s", "dim"))


def line(epoch: "Epoch", epochs: int, terms: "Mapping[str, Term]") -> Text:
    """Writes an epoch: both losses, as many terms of the last one as fit, speed, whether best.

    First what is warmed up, together: the KL to the prior; then shares, such as how often a critic
    is right; then what is maximised, the largest first, and what is minimised; last what trains
    other groups of parameters. ``…`` says that something is left out.

    Args:
        epoch: The epoch.
        epochs: How many there will be.
        terms: What the terms are, see :func:`mmgen.inference.terms.terms`.
    """
    count = f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}  loss "
    losses = " / ".join(number(t["loss"]) for t in (epoch.train, epoch.validation) if t)
    warming = f"  β {epoch.beta:.2f}" if epoch.beta < 1 else ""
    speed = f"  {number(epoch.examples_per_second, 0)}/s"
    best = " best" if epoch.best else ""
    left = WIDTH - sum(map(len, (count, losses, warming, speed, " best")))
    told = _fitting(_short(epoch.validation or epoch.train, terms), left)
    return styled(count, (losses, "bold"), warming, told, speed, (best, "green"))


def number(value: float, digits: int = 2) -> str:
    """Writes a number in at most 10 characters: ``"-723.25"``, ``"12,345"``, ``"1.2e+30"``.

    Examples:
        >>> [number(n) for n in (-723.248, 12345.6, -1e30, float("inf"))]
        ['-723.25', '12,346', '-1e+30', 'inf']
    """
    if abs(value) < 10_000:
        return f"{value:.{digits}f}"
    return f"{value:,.0f}" if abs(value) < 10_000_000 else f"{value:.3g}"


def _short(values: Mapping[str, float], terms: "Mapping[str, Term]") -> dict[str, str]:
    """Names the terms in short; those of subsets, up to 2^K − 2, are one."""
    every = {name: terms[name] for name in values if name in terms}
    shares = [name for name, term in every.items() if term.unit == "share"]
    others = [name for name, term in every.items() if term.trains and MODEL not in term.trains]
    own = {name: term for name, term in every.items() if name not in (*shares, *others)}
    warmed = [name for name, term in own.items() if term.warmed_up]
    minimised = [name for name, term in own.items() if term.about and term.weight > 0]
    subsets = [name for name in minimised if name not in warmed]
    shown = {"kl": number(sum(values[name] for name in warmed))} if warmed else {}
    shown |= {name.rpartition("/")[2]: f"{values[name]:.0%}" for name in shares}
    rest = [n for n in values if n not in (*warmed, *subsets, *shares, *others, "loss")]
    for name in sorted(rest, key=lambda name: -abs(values[name])):
        about = "+".join(own[name].about) if name in own else ""
        shown[about if about and about not in shown else name] = number(values[name])
    if subsets:
        shown["subsets"] = number(sum(values[name] for name in subsets))
    return shown | {name: number(values[name]) for name in others if name not in shown}


def _fitting(terms: Mapping[str, str], width: int) -> str:
    """Writes as many terms as fit, in their order."""
    words, left_out = "", False
    for done, (name, value) in enumerate(terms.items(), start=1):
        short = printable(name)
        if cell_len(short) > LONGEST:
            short = set_cell_size(short, LONGEST - 1) + "…"
        more = f"  {short} {value}"
        mark = len(" …") if left_out or done < len(terms) else 0
        if cell_len(words + more) + mark <= width:
            words += more
        else:
            left_out = True
    return f"{words} …" if left_out and cell_len(words) + len(" …") <= width else words
