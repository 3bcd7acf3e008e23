"""One logistic regression for each label: what TF-IDF is where a message may have several."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression

Labels = npt.NDArray[np.int64]


class OneVsRest(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """As scikit-learn's OneVsRestClassifier, with all coefficients in one array.

    A label that every message has, or none, is answered by its frequency (of n + 1 messages of
    which one differs).

    Args:
        regression: What is fitted to each label.

    Attributes:
        coef_: Shape (k, n_terms).
        intercept_: Shape (k,).

    Checked by tests/unit/evaluation/test_labels.py against scikit-learn's.
    """

    def __init__(self, regression: LogisticRegression) -> None:
        self.regression = regression

    def fit(self, features: Any, labels: Labels) -> "OneVsRest":
        """Fit to features, shape (n, n_terms), and labels of 0 and 1, shape (n, k)."""
        self.coef_ = np.zeros((labels.shape[1], features.shape[1]))
        self.intercept_ = np.zeros(labels.shape[1])
        for c, truth in enumerate(labels.T):
            if truth.min() == truth.max():
                self.intercept_[c] = math.log(len(truth)) * (1 if truth[0] else -1)
                continue
            fitted = clone(self.regression).fit(features, truth)
            self.coef_[c], self.intercept_[c] = fitted.coef_[0], fitted.intercept_[0]
        return self

    def decision_function(self, features: Any) -> npt.NDArray[np.float64]:
        """Return the logit of each label, shape (n, k)."""
        return np.asarray(features @ self.coef_.T + self.intercept_, dtype=np.float64)

    def predict_proba(self, features: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each label, shape (n, k)."""
        return np.asarray(expit(self.decision_function(features)), dtype=np.float64)
