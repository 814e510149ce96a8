"""The class of each slot of a draw, and which slots are polarity draws (docs/method.md#prefix).

Both are functions of the number of the slot alone, so that the first m of n slots are the slots of a draw of m.
"""

from fractions import Fraction

import numpy as np

_MOST = 10**9  # largest denominator of a share: decimals of up to nine digits are exact


def of_classes(n: int, num_classes: int) -> np.ndarray:
    """Return the number of slots of each class among n, [C] int64: slot j has class j mod C."""
    return (n + num_classes - 1 - np.arange(num_classes)) // num_classes


def num_polarity(n: int, mix: float) -> int:
    """Return ⌊n F⌋, the number of polarity draws among n slots; F is the decimal as typed, not its float."""
    share = _exact(mix)
    return n * share.numerator // share.denominator


def are_polarity(n: int, mix: float, num_classes: int = 1) -> np.ndarray:
    """Return which slots are polarity draws, [n] bool: slot j if ⌊(j+1) F⌋ > ⌊j F⌋.

    With classes the slots of each class are counted on their own, by j div C, so that no class is left out.
    """
    share = _exact(mix)
    turns = np.arange(n, dtype=np.int64) // num_classes
    return (turns + 1) * share.numerator // share.denominator > turns * share.numerator // share.denominator


def _exact(mix: float) -> Fraction:
    return Fraction(repr(float(mix))).limit_denominator(_MOST)
