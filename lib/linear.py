"""Fits the linear head that stands on a frozen network's features (notebooks 03 and 04)."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def fit_head(
    features: np.ndarray, class_ids: np.ndarray, weights: np.ndarray, *, c: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a logistic regression on standardised features; the scaling goes into the head's weights.

    Parameters
    ----------
    features : ndarray, (n_clips, n_features)
        As the network gives them.
    class_ids : ndarray of int, (n_clips,)
    weights : ndarray, (n_clips,)
        How much each clip counts, 1 on average.
    c : float
        Inverse strength of the L2 penalty.

    Returns
    -------
    (ndarray, ndarray)
        Weights (n_classes, n_features) and biases (n_classes,) for features as they are.
    """
    scale, regression = StandardScaler(), LogisticRegression(C=c, max_iter=1000)
    regression.fit(scale.fit_transform(features), class_ids, sample_weight=weights)
    kernel = regression.coef_ / scale.scale_
    return kernel, regression.intercept_ - kernel @ scale.mean_
