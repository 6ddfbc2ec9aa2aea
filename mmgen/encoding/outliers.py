"""How unusual a row is: its log-likelihood among those of held-out rows that have the same.

log p(x_S) compares for one S alone, so that each row is held against held-out rows of the run's
data set of which as much is known.

- The score is (m − log p(x_S)) / s, with mean m and standard deviation s of log p of those rows: 0
  is usual, 3 is three deviations less likely than they are on average.
- The p-value is the share of them that are as unlikely, with the row itself among them: of rows
  like those that were held out, at most a share p has a p-value of p or less, whatever log p is,
  exact or not, as it is computed in the same way for all (conformal prediction).

References:
    V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005;
    E. Nalisnick et al., "Do Deep Generative Models Know What They Don't Know?", ICLR 2019: what is
    simpler than the training rows can be likelier than they are, and is no outlier here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.split import Split
from mmgen.model import Model
from mmgen.rows.inference import groups, log_prob
from mmgen.rows.reading import read
from mmgen.subsets import Subset

ROWS = 1000
"""The most held-out rows that others are held against."""


@dataclass(frozen=True, repr=False)
class Likelihoods(OneLine):
    """Estimates log p(x_S) of rows, and how unusual that is.

    Attributes:
        model: In eval mode.
        samples: How many z of each row.
        seed: Of the noise.
        held_out: Observations of rows to hold others against; ``None`` without scores.
    """

    model: Model
    samples: int
    seed: int = 0
    held_out: Batch | None = None
    _known: dict[Subset, Tensor] = field(default_factory=dict)

    def of(self, x: Batch, rows: int) -> dict[str, Tensor]:
        """Returns ``log_likelihood``, and with held-out rows ``outlier`` and ``p_value``.

        Each is ``(rows,)``. Of rows that have nothing, the score is 0 and the p-value 1; of those
        of which no held-out row has as much, the score is NaN and the p-value 1.
        """
        log_p = log_prob(self.model, x, rows, samples=self.samples, seed=self.seed)
        found = {"log_likelihood": log_p}
        if self.held_out is None:
            return found
        found |= {"outlier": torch.zeros_like(log_p), "p_value": torch.ones_like(log_p)}
        for numbers, had in groups(x, rows):
            if had:
                usual = self._usual(tuple(had))
                if not len(usual):
                    found["outlier"][numbers] = torch.nan
                    continue
                own = log_p[numbers]
                spread = usual.std(correction=0).clamp_min(1e-6)
                found["outlier"][numbers] = (usual.mean() - own) / spread
                as_unlikely = torch.searchsorted(usual, own, right=True)
                found["p_value"][numbers] = (1 + as_unlikely) / (1 + len(usual))
        return found

    def _usual(self, S: Subset) -> Tensor:
        """Returns log p(x_S) of the held-out rows that have all of S, sorted."""
        assert self.held_out is not None
        if S not in self._known:
            x = self.held_out.select(S)
            has = x.having(S)
            if has is not None:
                x = Batch({n: values[has] for n, values in x.items()})
            how = {"samples": self.samples, "seed": self.seed}
            log_p = (
                log_prob(self.model, x, x.rows, **how) if x.rows else self.model.like.new_empty(0)
            )
            self._known[S] = log_p.sort().values
        return self._known[S]


def held_out_rows(split: Split, model: Model, seed: int = 0) -> Batch:
    """Reads rows to hold others against: up to :data:`ROWS`, evenly spread over a split."""
    names: Mapping[str, object] = {n: m for n, m in model.modalities.items() if n in split.names}
    some = split.spread(ROWS, names)
    modalities = {n: m for n, m in model.modalities.items() if n in names}
    return read(modalities, some, model.like, seed).slice(0, some.count)
