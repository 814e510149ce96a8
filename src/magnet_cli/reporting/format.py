"""Numbers in words, as pages have them."""

from magnet_cli.maths.metrics.intervals import Estimate

_NOTHING, _THOUSAND, _BILLION = 1e-12, 1e3, 1e9


def number(value: float, digits: int = 4) -> str:
    """A few digits, whatever the size; a true minus, and no rest of rounding."""
    if abs(value) < _NOTHING:
        return "0"
    text = f"{value:,.0f}" if _THOUSAND <= abs(value) < _BILLION else f"{value:.{digits}g}"
    return text.replace("-", "−")


def integer(value: float) -> str:
    """A count."""
    return f"{value:,.0f}"


def estimate(found: Estimate) -> tuple[str, str]:
    """A number, and its interval; the second of its ends keeps the word before it."""
    return number(found.value), f"{number(found.low, 3)} to\N{NO-BREAK SPACE}{number(found.high, 3)}"
