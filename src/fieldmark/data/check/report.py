"""What the data doctor reports, and how it looks on a terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_SHOWN = 15


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        severity: "error" (mend it), "warning" (look at it) or "note" (handled; good to know).
        code: Kind of finding ("truncated", "duplicate-across-classes" ...).
        file: The file, class or folder.
        message: What it is and what to do, in one line.
        others: Further files that belong to it (the other copies of a duplicate).
    """

    severity: Severity
    code: str
    file: str
    message: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What `check_folder` found.

    Attributes:
        path: What was examined.
        layout: "class folders", "split folders", "list" or "none".
        counts: Images of each class of each split (split "" when there are none).
        problems: All findings, errors first.
    """

    path: str
    layout: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings and notes may be)."""
        return not any(problem.severity == "error" for problem in self.problems)

    @property
    def images(self) -> int:
        """Number of image files."""
        return sum(sum(classes.values()) for classes in self.counts.values())

    @property
    def classes(self) -> list[str]:
        """Names of all classes, sorted."""
        return sorted({name for classes in self.counts.values() for name in classes})

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "path": self.path,
            "layout": self.layout,
            "ok": self.ok,
            "images": self.images,
            "classes": len(self.classes),
            "counts": self.counts,
            "found": dict(sorted(Counter(problem.code for problem in self.problems).items())),
            "problems": [{**vars(problem), "others": list(problem.others)} for problem in self.problems],
        }


def render(report: CheckReport) -> RenderableType:
    """The report for a terminal: a line of summary, images per class, findings by kind.

    Example:
        >>> from rich.console import Console
        >>> Console(width=60).print(render(CheckReport("photos", "class folders", {"": {"cat": 3}})))
        photos: class folders, 1 class, 3 images
        ...
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    many = "class" if len(report.classes) == 1 else "classes"
    parts: list[Any] = [Text(f"{report.path}: {report.layout}, {len(report.classes)} {many}, {report.images} images")]
    for split, classes in report.counts.items():
        numbers = sorted(classes.values())
        spread = f"{numbers[0]} to {numbers[-1]} images a class, median {numbers[len(numbers) // 2]}"
        parts.append(Text(f"{split + ': ' if split else ''}{len(classes)} classes, {spread}"))
        few = sorted(classes.items(), key=lambda item: (item[1], item[0]))[:_SHOWN]
        parts.append(Text("  fewest: " + ", ".join(f"{name} {count}" for name, count in few), style="dim"))
    table = Table("", "what", "file", "what to do", box=None, pad_edge=False)
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    by_code: dict[str, list[Problem]] = defaultdict(list)
    for problem in report.problems:
        by_code[problem.code].append(problem)
    for code, found in by_code.items():
        for problem in found[:_SHOWN]:
            mark = Text(problem.severity, style=styles[problem.severity])
            table.add_row(mark, code, Text(problem.file, overflow="fold"), Text(problem.message))
        if len(found) > _SHOWN:
            table.add_row("", code, "...", f"{len(found) - _SHOWN} more; --json FILE lists them all")
    if report.problems:
        parts.append(table)
    totals = Counter(problem.severity for problem in report.problems)
    verdict = ", ".join(f"{totals[s]} {s}{'' if totals[s] == 1 else 's'}" for s in SEVERITIES)
    parts.append(Text(verdict + ("" if report.ok else ": mend the errors before training"), style="bold"))
    return Group(*parts)
