"""A scikit-learn transformer: rows to z and back, so that a run takes part in a pipeline.

scikit-learn is used where it is installed, and not needed: without it the class has the same
methods, but no part in ``clone``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from mmgen.errors import GenerationError
from mmgen.fitting import train
from mmgen.run import Run

if TYPE_CHECKING:

    class _Base:
        """What scikit-learn's classes add."""

else:
    try:
        from sklearn.base import BaseEstimator, TransformerMixin

        class _Base(TransformerMixin, BaseEstimator):
            """What scikit-learn's classes add: parameters, ``fit_transform``."""

    except ImportError:

        class _Base:
            """Nothing."""


class MultimodalTransformer(_Base):
    """Trains on rows of several modalities; ``transform`` gives the mean of q(z | x_S).

    Args:
        config: As of :func:`mmgen.train`: settings, with the kind of each modality.
        run: A run that is trained already: ``fit`` then trains nothing.

    Attributes:
        run_: The run.

    Examples:
        >>> kinds = {"side": {"kind": "label", "classes": ["left", "right"]},
        ...          "size": {"kind": "vector", "names": ["height"]}}
        >>> MultimodalTransformer({"modalities": kinds}).fit(rows)  # doctest: +SKIP
    """

    def __init__(self, config: Mapping[str, Any] | None = None, run: Run | None = None) -> None:
        self.config = config
        self.run = run

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ARG002
        """Trains on rows: columns by modality, or what else :func:`mmgen.train` takes."""
        self.run_ = train(self.config, X) if self.run is None else self.run
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Returns the mean of q(z | x_S) of rows that may lack modalities, ``(rows, Z)``.

        Of several layers of latents all, one after the other.
        """
        mean = self.run_.encode(X).mean
        return mean.flatten(1).float().cpu().numpy()

    @torch.no_grad()
    def inverse_transform(self, Z: Any) -> dict[str, NDArray[np.float32]]:
        """Returns the mean of p(x_k | z) of each modality, as nets see values: ``(rows, *shape)``.

        Raises:
            GenerationError: If a decoder reads more than z.
        """
        model = self.run_.model
        if model.decoder_given:
            raise GenerationError(f"what is decoded follows from {model.direction()}, not z alone")
        event = model.prior(model.blank(())).event_shape
        z = torch.as_tensor(np.asarray(Z), dtype=model.like.dtype, device=model.like.device)
        decoded = model.decode(z.reshape(len(z), *event))
        return {n: p.mean.float().cpu().numpy() for n, p in decoded.items()}

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Names the numbers of z."""
        from mmgen.encoding.codes import z_names

        model = self.run_.model
        given = model.directions.given if model.directions else ()
        return np.array(z_names(model.prior(model.blank(given)).event_shape), dtype=object)
