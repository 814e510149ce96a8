"""Agreement of clusters with classes: purity, adjusted Rand index, normalised mutual information, matching."""

import numpy as np

from magnet_cli.errors import require


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Return purity, ARI and NMI (scikit-learn's default, arithmetic) of clusters [n] against true labels [n].

    Raises:
        MagnetError: scikit-learn is not installed.
    """
    sklearn = require("sklearn.metrics", "evaluate")
    table = counts(labels, clusters)
    return {
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "ari": float(sklearn.adjusted_rand_score(labels, clusters)),
        "nmi": float(sklearn.normalized_mutual_info_score(labels, clusters)),
    }


def counts(labels: np.ndarray, clusters: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Return the number of samples of each class in each cluster: [C, K] int64."""
    shape = shape or (int(labels.max()) + 1, int(clusters.max()) + 1)
    table = np.zeros(shape, np.int64)
    np.add.at(table, (labels, clusters), 1)
    return table


def matched(table: np.ndarray) -> np.ndarray:
    """Return the class of each cluster that puts most samples into their class (the Hungarian method, Kuhn 1955).

    Args:
        table: [C, K], from `counts`.

    Returns:
        [K] int64; -1 for clusters without a class, if K > C.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    class_of = np.full(table.shape[1], -1)
    classes, clusters = linear_sum_assignment(table, maximize=True)
    class_of[clusters] = classes
    return class_of


def weight_errors(weights: np.ndarray, shares: np.ndarray, class_of: np.ndarray) -> dict[str, float]:
    """Return the mean and the largest of |π_c − π*_c| over the classes, π the learned weights and π* the true shares.

    Args:
        weights: [K], of the clusters.
        shares: [C], of the classes.
        class_of: [K], from `matched`; a class without a cluster has weight 0, clusters without a class are left out.
    """
    there = class_of >= 0
    learned = np.bincount(class_of[there], weights[there], minlength=len(shares))
    errors = np.abs(learned - shares)
    return {"mean": float(errors.mean()), "worst": float(errors.max())}
