"""The papers' tables, row by row: what was published, what reproduces it, and what came out.

Example:
    >>> [row.address for row in find("lssa/6")]
    ['lssa/6/baseline', 'lssa/6/ours']
"""

from __future__ import annotations

from fieldmark.reproduce.catalogue import Cell, Paper, Row, Table, find, load_papers

__all__ = ["Cell", "Paper", "Row", "Table", "find", "load_papers"]
