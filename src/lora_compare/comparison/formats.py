"""Numbers as people read them: percentages, intervals, sizes, durations, ratios."""

from collections.abc import Sequence
from typing import Any

from lora_compare.project.files import canonical_json

UNKNOWN = "n/a"
"""What stands where a number was not measured."""

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction in 0..1 as a percentage, such as `97.6 %`."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.{digits}f} %"


def spread(mean: float | None, deviation: float | None, digits: int = 1) -> str:
    """Return a mean of fractions as a percentage, with its standard deviation where there is one.

    Such as `96.1 ± 0.4 %`.
    """
    if mean is None or deviation is None:
        return percent(mean, digits)
    return f"{100 * mean:.{digits}f} ± {percent(deviation, digits)}"


def percent_interval(interval: Sequence[float]) -> str:
    """Return an interval of fractions in 0..1 as percentages, such as `95.2-98.9`."""
    low, high = interval
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def points(difference: float) -> str:
    """Return a difference of fractions in percentage points with its sign, such as `+1.4`."""
    shown = f"{100 * difference:+.1f}"
    return shown[1:] if shown[1:] == "0.0" else shown.replace("-", MINUS)


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a unitless number with a fixed number of decimals."""
    return UNKNOWN if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def p_value(p: float) -> str:
    """Return a p-value, such as `0.034` or `< 0.001`."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(value: float | None) -> str:
    """Return a whole number with commas between thousands."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def size(n_bytes: float | None) -> str:
    """Return a number of bytes in the decimal unit that suits it, such as `297 kB`."""
    if n_bytes is None:
        return UNKNOWN
    value, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{_short(value)} {unit}"


def duration(seconds: float | None) -> str:
    """Return a time in seconds as hours, minutes and seconds, such as `2 min 05 s`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "\N{MICRO SIGN}s"))
"""Units of short times, in seconds."""


def short_time(seconds: float | None) -> str:
    """Return a time in the unit that suits it, with three digits, such as `18.4 ms`."""
    if seconds is None:
        return UNKNOWN
    return f"{in_unit_of(seconds, seconds)} {_unit(seconds)[1]}"


def in_unit_of(seconds: float, other: float) -> str:
    """Return a time without its unit, which is the one that suits another time."""
    value = seconds / _unit(other)[0]
    return f"{value:,.{max(0, 2 - len(str(int(value))) + 1)}f}"


def _unit(seconds: float) -> tuple[float, str]:
    return next((unit for unit in TIMES if seconds >= unit[0]), TIMES[-1])


def share(ratio: float | None) -> str:
    """Return a ratio to a reference as a percentage of it, such as `7.1 %`."""
    if ratio is None:
        return UNKNOWN
    return f"{100 * ratio:.2g} %" if ratio < 0.0995 else f"{100 * ratio:,.0f} %"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def setting(value: Any) -> str:
    """Return a setting as YAML would show it."""
    return value if isinstance(value, str) else canonical_json(value).strip()


def shorten(text: str, length: int) -> str:
    """Return a text, or its beginning with how long the whole is."""
    if len(text) <= length:
        return text
    return text[:length] + f"\N{HORIZONTAL ELLIPSIS} ({len(text):,} characters)"
