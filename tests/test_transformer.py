"""A run in a scikit-learn pipeline."""

import numpy as np
import pytest
import torch
from test_fitting import SMALL, rows

import mmgen
from mmgen.transformer import MultimodalTransformer


def test_rows_become_z_and_z_rows():
    transformer = MultimodalTransformer(SMALL)
    z = transformer.fit(rows(60)).transform({"side": ["left", None], "size": ["1.5,60", "1.9,80"]})
    assert z.shape == (2, 2)
    assert z.dtype == np.float32
    q = transformer.run_.encode({"side": ["left", None], "size": ["1.5,60", "1.9,80"]})
    assert np.array_equal(z, q.mean.numpy())
    back = transformer.inverse_transform(z)
    assert back["side"].shape == (2, 2)
    np.testing.assert_allclose(back["side"].sum(1), 1, atol=1e-5)
    p = transformer.run_.model.decode(torch.as_tensor(z))
    assert np.array_equal(back["size"], p["size"].mean.detach().numpy())
    assert transformer.get_feature_names_out().tolist() == ["z1", "z2"]


def test_it_takes_part_in_a_pipeline():
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    run = mmgen.train({**SMALL, "train": {"epochs": 5, "batch_size": 30}}, rows(200))
    transformer = MultimodalTransformer(run=run)
    assert clone(MultimodalTransformer(SMALL)).get_params()["config"] == SMALL
    pipeline = make_pipeline(transformer, LogisticRegression())
    seen = {"size": rows(200)["size"].tolist()}
    pipeline.fit(seen, rows(200)["side"].numpy())
    assert pipeline.predict(seen).shape == (200,)
    assert transformer.fit_transform(seen).shape == (200, 2)
