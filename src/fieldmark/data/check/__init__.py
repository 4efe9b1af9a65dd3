"""The data doctor: everything that is wrong, or worth knowing, about a folder of images, in one pass.

Nothing is changed and nothing stops it: an unreadable file is one more line of the report.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from fieldmark.data.check.copies import find_copies
from fieldmark.data.check.files import examine_all, file_problems
from fieldmark.data.check.plan import class_problems, make_plan
from fieldmark.data.check.report import SEVERITIES, CheckReport, Problem, render
from fieldmark.errors import FieldmarkError

__all__ = ["CheckReport", "Problem", "check_folder", "render"]


def check_folder(
    path: str | os.PathLike[str], *, splits: Sequence[str] | None = None, tiny: int = 32, progress: bool = True
) -> CheckReport:
    """Examine a folder of class folders, of split folders of these, a zip of either, or a list file.

    Args:
        path: The folder, zip or list file (CSV or text: path, label).
        splits: Names of top-level folders that are splits; default: train, val, test, support, query and the like.
        tiny: Images with a shorter side below this many pixels are pointed out.
        progress: Show a bar on a terminal.

    Raises:
        FieldmarkError: There is nothing at that path, or it is no folder, zip or list; whatever else is wrong is in
            the report.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (folder / name).mkdir()
        >>> Image.new("RGB", (64, 64)).save(folder / "cat/1.png")
        >>> report = check_folder(folder)
        >>> report.ok, [problem.code for problem in report.problems]
        (False, ['empty-class', 'single-image'])
    """
    if not isinstance(tiny, int) or tiny < 0:
        raise FieldmarkError(f"tiny is {tiny!r}; expected a number of pixels from 0 on")
    source, plan = make_plan(path, splits)
    facts = examine_all(source, list(plan.where), progress)
    problems = [*plan.problems, *class_problems(plan)]
    for name, fact in facts.items():
        problems += file_problems(name, fact, tiny)
    problems += find_copies(facts, plan.where)
    problems.sort(key=lambda problem: (SEVERITIES.index(problem.severity), problem.code, problem.file))
    return CheckReport(str(path), plan.layout, plan.counts(), tuple(problems))
