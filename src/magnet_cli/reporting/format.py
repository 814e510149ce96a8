"""Format numbers for a page."""

from magnet_cli.maths.metrics.intervals import Estimate

_NOTHING, _THOUSAND, _BILLION = 1e-12, 1e3, 1e9


def number(value: float, digits: int = 4) -> str:
    """Return a number with a few significant digits and a true minus sign; values below 1e-12 as 0."""
    if abs(value) < _NOTHING:
        return "0"
    text = f"{value:,.0f}" if _THOUSAND <= abs(value) < _BILLION else f"{value:.{digits}g}"
    return text.replace("-", "−")


def integer(value: float) -> str:
    """Return a count with thousands separators."""
    return f"{value:,.0f}"


def estimate(value: Estimate) -> tuple[str, str]:
    """Return the value, and its interval with a no-break space before the upper end."""
    return number(value.value), f"{number(value.low, 3)} to\N{NO-BREAK SPACE}{number(value.high, 3)}"
