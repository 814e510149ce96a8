"""How well clusters are classes: purity, adjusted Rand index, normalised mutual information; and which is which.

Owns the numbers, by scikit-learn where it has them. Knows nothing of what was clustered.
"""

import numpy as np

from magnet_cli.errors import require


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Purity, ARI and NMI (arithmetic mean below, scikit-learn's default) of clusters [n] against true labels [n].

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
    """How many of each class [C] are in each cluster [K]: [C, K] int64."""
    shape = shape or (int(labels.max()) + 1, int(clusters.max()) + 1)
    table = np.zeros(shape, np.int64)
    np.add.at(table, (labels, clusters), 1)
    return table


def matched(table: np.ndarray) -> np.ndarray:
    """The class of each cluster, so that most samples are where they belong (the Hungarian method).

    Args:
        table: [C, K] of `counts`, C ≤ K or C ≥ K.

    Returns:
        [K] int64; -1 for clusters that no class is left for.
    """
    from scipy.optimize import linear_sum_assignment  # it takes its time to load

    found = np.full(table.shape[1], -1)
    classes, clusters = linear_sum_assignment(table, maximize=True)
    found[clusters] = classes
    return found


def weight_errors(weights: np.ndarray, shares: np.ndarray, class_of: np.ndarray) -> dict[str, float]:
    """How far learned weights are from true shares: the mean and the largest of |π_c − π*_c| over the classes.

    Args:
        weights: [K], of clusters.
        shares: [C], of classes.
        class_of: [K], of `matched`; a class without a cluster has weight 0, clusters without a class count for none.
    """
    there = class_of >= 0
    learned = np.bincount(class_of[there], weights[there], minlength=len(shares))
    errors = np.abs(learned - shares)
    return {"mean": float(errors.mean()), "worst": float(errors.max())}
