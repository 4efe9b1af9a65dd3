"""Means and intervals as the papers compute them, and differences of two methods on the same episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from fieldmark.errors import FieldmarkError

Interval = Literal["normal", "student"]


@dataclass(frozen=True)
class Estimate:
    """A mean with the half width of its 95% confidence interval.

    ``over`` says what varies: ``"episodes"`` (one model, many episodes) or ``"seeds"`` (many trained models or draws).
    The two answer different questions and are never pooled. One value alone says nothing of how it varies: the half
    width is then infinite, in files null.
    """

    mean: float
    ci95: float
    count: int
    over: str
    interval: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Estimate:
        """From what a file holds; other keys are left alone.

        Example:
            >>> Estimate.from_dict({"mean": 0.5, "ci95": None, "count": 1, "over": "seeds", "interval": "student"}).ci95
            inf
        """
        half = math.inf if values["ci95"] is None else values["ci95"]
        return cls(values["mean"], half, values["count"], values["over"], values["interval"])

    def to_dict(self) -> dict[str, float | int | str]:
        """Plain values, for JSON."""
        return asdict(self)

    def percent(self) -> str:
        """The way the papers print it: ``61.23 ± 0.80``.

        Digits are cut, never rounded up; the half width is rounded away from zero. Of a single value there is none:
        ``61.23 ± ?``.
        """
        return f"{percent(self.mean)} ± {self._half_width()}"

    def points(self) -> str:
        """A difference in points, with its sign.

        Example:
            >>> Estimate(0.0123, 0.004, 600, "episodes", "normal").points()
            '+1.23 ± 0.40'
        """
        return f"{points_above(self.mean, 0)} ± {self._half_width()}"

    def _half_width(self) -> str:
        return "?" if math.isinf(self.ci95) else f"{math.ceil(self.ci95 * 1e4 - 1e-6) / 100:.2f}"


def percent(share: float) -> str:
    """A share in per cent with two digits, cut.

    Example:
        >>> percent(0.61239), percent(0.1)
        ('61.23', '10.00')
    """
    # The small number keeps what binary fractions lose (0.1 is 10.00, not 9.99).
    return f"{math.floor(share * 1e4 + 1e-6) / 100:.2f}"


def points_above(ours: float, published: float) -> str:
    """Ours less another number in points with two digits and their sign, never rounded up.

    Example:
        >>> points_above(0.611, 0.6031), points_above(0.7688, 0.7715), points_above(0.5, 0.5)
        ('+0.79', '-0.27', '0.00')
    """
    text = percent(ours - published)
    return f"+{text}" if float(text) > 0 else text


def shares_for_file(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares by name with six digits: more would say nothing, and a class is one of many lines in a file.

    Example:
        >>> shares_for_file({"apple": 2 / 3})
        {'apple': 0.666667}
    """
    return {name: round(share, 6) for name, share in shares.items()}


def hits_for_file(hits: np.ndarray) -> str:
    """Hits of single images as one digit each, half of what a list takes; :func:`hits_of_file` reads them.

    Args:
        hits: ``(N,)`` whether each image was right.

    Example:
        >>> hits_for_file(np.array([True, True, False]))
        '110'
    """
    return "".join("1" if hit else "0" for hit in hits)


def hits_of_file(hits: str | Sequence[int]) -> np.ndarray:
    """Hits of a results file as numbers ``(N,)``: of single images from a text, of episodes from a list of counts.

    Raises:
        FieldmarkError: For a text with anything else than ``0`` and ``1``.

    Example:
        >>> hits_of_file("110"), hits_of_file([63, 58])
        (array([1., 1., 0.]), array([63., 58.]))
    """
    if isinstance(hits, str) and (other := set(hits) - {"0", "1"}):
        raise FieldmarkError(f"hits of single images are digits 0 and 1, not {min(other)!r}")
    return np.array(list(hits), dtype=np.float64)


def estimate(values: Sequence[float] | np.ndarray, over: str = "episodes", interval: Interval = "normal") -> Estimate:
    """Mean and 95% confidence interval of independent values.

    Args:
        values: One accuracy (or difference) an episode or a seed.
        over: What the values vary over.
        interval: ``"normal"``: 1.96 * standard deviation (n in the denominator) / sqrt(n), as DeepEMD's code and most
            papers; ``"student"``: the t quantile with the standard error (n - 1), as SCL's code. With few seeds only
            ``"student"`` is honest.

    Raises:
        FieldmarkError: For no values, or values that are not finite.

    Example:
        >>> estimate([0.5, 0.7, 0.6, 0.6]).percent()
        '60.00 ± 6.93'
        >>> estimate([0.5]).percent()
        '50.00 ± ?'
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise FieldmarkError(f"an estimate needs finite values; got {values.size} of which some may be NaN")
    mean, n = float(values.mean()), int(values.size)
    if interval not in ("normal", "student"):
        raise FieldmarkError(f"interval is {interval!r}; expected 'normal' or 'student'")
    if n == 1:
        half = math.inf
    elif interval == "normal":
        half = 1.96 * float(values.std()) / math.sqrt(n)
    else:
        from scipy import stats

        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, half, n, over, interval)


def median_run(values: Sequence[float]) -> int:
    """Number of the run whose value is the median; of an even number of runs the lower of the two in the middle.

    Example:
        >>> median_run([0.71, 0.69, 0.70])
        2
    """
    if not len(values):
        raise FieldmarkError("a median needs at least one run")
    return int(np.argsort(np.asarray(values, dtype=np.float64), kind="stable")[(len(values) - 1) // 2])


def paired_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, interval: Interval = "normal"
) -> Estimate:
    """Mean difference ``first - second`` over the same episodes; much narrower than two separate intervals.

    Example:
        >>> paired_difference([0.5, 0.7, 0.6], [0.4, 0.6, 0.5]).percent()
        '10.00 ± 0.00'
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise FieldmarkError(
            f"a paired difference needs the same episodes on both sides; got {first.size} and {second.size}"
        )
    return estimate(first - second, interval=interval)
