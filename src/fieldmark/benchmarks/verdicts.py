"""Whether a row of a benchmark reaches its target, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def target_text(row: Mapping[str, Any]) -> str:
    """What a row is to reach: a ratio at least, or a time at most; nothing for a row without a target.

    Args:
        row: As benchmarks give it; ``target`` is a ratio, ``target_seconds`` the time of one call of ours.

    Example:
        >>> target_text({"target": 8.0}), target_text({"target_seconds": 0.5}), target_text({})
        ('8', 'at most 0.5 s', '')
    """
    parts = [f"{row['target']:g}"] if row.get("target") is not None else []
    parts += [f"at most {row['target_seconds']:g} s"] if row.get("target_seconds") is not None else []
    return ", ".join(parts)


def verdict(row: Mapping[str, Any]) -> str:
    """PASS, FAIL, or nothing for a row without a target.

    Args:
        row: Likewise.

    Example:
        >>> verdict({"target": 8.0, "ratio": 7.999}), verdict({"target": 8.0, "ratio": 8.0}), verdict({"ratio": 0.1})
        ('FAIL', 'PASS', '')
        >>> verdict({"ratio": 6.4, "target_seconds": 0.5, "milliseconds": {"ours": 501.0}})
        'FAIL'
    """
    reached = []
    if row.get("target") is not None:
        reached.append(row["ratio"] >= row["target"])
    if row.get("target_seconds") is not None:
        reached.append(row["milliseconds"]["ours"] <= 1e3 * row["target_seconds"])
    return ("PASS" if all(reached) else "FAIL") if reached else ""


def short(number: float) -> str:
    """Three digits at least.

    Example:
        >>> short(12345.6), short(12.345), short(0.00833)
        ('12345.6', '12.35', '0.00833')
    """
    if number >= 100:
        return f"{number:.1f}"
    return f"{number:.2f}" if number >= 10 else f"{number:.3g}"
