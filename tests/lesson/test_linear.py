"""The linear head: what scikit-learn's pipeline answers, from features as they are."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import linear


def test_the_head_answers_as_the_regression_on_scaled_features(rng):
    features = rng.normal(5.0, [1.0, 100.0, 0.01, 3.0], (60, 4))
    class_ids, weights = np.arange(60) % 3, rng.uniform(0.5, 1.5, 60)
    kernel, bias = linear.fit_head(features, class_ids, weights, c=0.3)
    assert kernel.shape == (3, 4) and bias.shape == (3,)
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000))
    regression.fit(features, class_ids, logisticregression__sample_weight=weights)
    np.testing.assert_allclose(
        softmax(features @ kernel.T + bias, axis=1), regression.predict_proba(features), atol=1e-6
    )
