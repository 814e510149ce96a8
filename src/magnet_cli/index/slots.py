"""Which slot of a draw is of which class, and which are polarity draws (METHOD: prefix).

Each is a function of the slot's number alone, so that the first m of n slots are those of m.
"""

from fractions import Fraction

import numpy as np

_MOST = 10**9  # denominators of a share: all decimals of up to nine digits are exact


def of_classes(n: int, num_classes: int) -> np.ndarray:
    """How many of n slots each class has, [C] int64: slot j is of class j mod C."""
    return (n + num_classes - 1 - np.arange(num_classes)) // num_classes


def num_polarity(n: int, mix: float) -> int:
    """⌊n F⌋, how many of n slots are polarity draws; F as it was typed, not as it was rounded to a float."""
    share = _exact(mix)
    return n * share.numerator // share.denominator


def are_polarity(n: int, mix: float, num_classes: int = 1) -> np.ndarray:
    """Which slots are polarity draws, [n] bool: slot j where ⌊(j+1) F⌋ > ⌊j F⌋.

    With classes that take turns the slots of each class are counted alone, j div C: else a class might have none.
    """
    share = _exact(mix)
    turns = np.arange(n, dtype=np.int64) // num_classes
    return (turns + 1) * share.numerator // share.denominator > turns * share.numerator // share.denominator


def _exact(mix: float) -> Fraction:
    return Fraction(repr(float(mix))).limit_denominator(_MOST)
