"""How the page says things: numbers, lists, differences, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fieldmark.picks.verdicts import Contrast


def shots_text(shot: int) -> str:
    """Number of shots in words.

    Example:
        >>> shots_text(1), shots_text(5)
        ('1 shot', '5 shots')
    """
    return many(shot, "shot")


def emphasised(contrast: Contrast) -> str:
    """The difference, bold where its interval leaves zero out."""
    text = contrast.difference.points()
    return text if contrast.verdict == "open" else f"**{text}**"


def number(value: float) -> str:
    """Two digits that count, without an exponent.

    Example:
        >>> number(0.01234), number(1234.5), number(2.34)
        ('0.012', '1,234', '2.3')
    """
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{float(f'{value:.2g}'):.6f}".rstrip("0").rstrip(".")


def many(count: int, what: str) -> str:
    """A number with its noun.

    Example:
        >>> many(1, "place"), many(16, "place")
        ('1 place', '16 places')
    """
    return f"{count} {what}{'s' * (count != 1)}"


def joined(names: Sequence[str]) -> str:
    """Words with commas and an *and*.

    Example:
        >>> joined(["1", "5", "10"])
        '1, 5 and 10'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown.

    Example:
        >>> table(["a", "b"], [["1", "2"]])
        ['| a | b |', '| --- | --- |', '| 1 | 2 |']
    """
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
