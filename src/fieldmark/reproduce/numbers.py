"""How numbers of a table are written: what was published, what came out, and the difference."""

from __future__ import annotations

from collections.abc import Sequence

from fieldmark.evaluation.statistics import Estimate, estimate, points_above
from fieldmark.reproduce.catalogue import Cell
from fieldmark.reproduce.state import Measured


def published_text(cell: Cell, digits: int) -> str:
    """A published number with its interval; a question mark where it cannot be read.

    Example:
        >>> from fieldmark.reproduce.catalogue import find
        >>> row, = find("lssa/3/all")
        >>> published_text(row.cells["cub"], 2)
        '73.07 ± 0.46'
    """
    if cell.value is None:
        return "?"
    return f"{cell.value:.{digits}f}" + ("" if cell.ci95 is None else f" ± {cell.ci95:.{digits}f}")


def ours_text(found: Sequence[Measured]) -> str:
    """Our number: of one seed with its interval over episodes (images, queries); of several also that over seeds.

    The interval over episodes of several seeds is the mean of theirs: the seeds share their episodes.
    """
    if not found:
        return ""
    if len(found) == 1:
        return found[0].estimate.percent()
    within = sum(one.estimate.ci95 for one in found) / len(found)
    first = found[0].estimate
    mean = Estimate(_mean(found), within, first.count, first.over, first.interval).percent()
    seeds = estimate([one.estimate.mean for one in found], "seeds", "student").percent()
    return f"{mean} over {first.over}, {seeds.partition(' ')[2]} over seeds"


def difference_text(found: Sequence[Measured], cell: Cell) -> str:
    """Our number less the published one, in points."""
    if not found or cell.value is None:
        return ""
    return points_above(_mean(found), cell.value / 100)


def seeds_text(found: Sequence[Measured]) -> str:
    """The seeds of the trainings."""
    return ", ".join("?" if one.seed is None else str(one.seed) for one in found)


def cost_text(found: Sequence[Measured]) -> str:
    """Time of the training and the machine; of several seeds the mean time."""
    times = [one.training_seconds for one in found if one.training_seconds is not None]
    if not found:
        return ""
    machines = ", ".join(dict.fromkeys(one.machine for one in found))
    return f"{duration(sum(times) / len(times))}, {machines}" if times else machines


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    Example:
        >>> duration(40), duration(5000), duration(40000)
        ('40 s', '83 min', '11.1 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _mean(found: Sequence[Measured]) -> float:
    return sum(one.estimate.mean for one in found) / len(found)
