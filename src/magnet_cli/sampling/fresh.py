"""Draws that are rows of no volume: fresh latents, in the place of the rows that an index gives.

Owns what a sample asks of them. Knows nothing of how they were found.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FreshDraw:
    """Latents for a sample, each with the log-volume that was computed for it.

    Attributes:
        latents: [n, D] float32, pairwise different.
        log_volume: [n] float64, natural log.
        labels: [n] int64, or None.
        origin: how they were found, for sample.json.
    """

    latents: np.ndarray
    log_volume: np.ndarray
    labels: np.ndarray | None
    origin: dict

    effective_size = largest_useful_rho = top_share = ball = pool = None  # said of rows of a volume
    displaced_share = 0.0

    @property
    def rows(self) -> np.ndarray:
        """[n] None: they are in no volume."""
        return np.full(len(self.latents), None)

    @property
    def prior(self) -> np.ndarray:
        """[n] bool, False: none is a draw from the prior."""
        return np.zeros(len(self.latents), bool)

    @property
    def num_polarity(self) -> int:
        """How many are drawn for a polarity: all."""
        return len(self.latents)

    @property
    def unique_rows(self) -> int:
        """How many there are."""
        return len(self.latents)

    @property
    def words(self) -> str:
        """What they are, in a few words."""
        return self.origin["words"]
