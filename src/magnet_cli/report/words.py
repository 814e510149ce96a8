"""Numbers in words, as pages have them."""

from magnet_cli.metrics.intervals import Estimate


def number(value: float, digits: int = 4) -> str:
    """A few digits, whatever the size; a true minus."""
    text = f"{value:,.0f}" if 10**digits <= abs(value) < 1e9 else f"{value:.{digits}g}"  # noqa: PLR2004
    return text.replace("-", "−")


def integer(value: float) -> str:
    """A count."""
    return f"{value:,.0f}"


def estimate(found: Estimate) -> tuple[str, str]:
    """A number, and its interval."""
    return number(found.value), f"{number(found.low, 3)} to {number(found.high, 3)}"
