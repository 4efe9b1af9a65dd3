"""Optimal transport of many small problems: one function, several solvers."""

from fieldmark.functional.transport import interior_point as _interior_point  # noqa: F401
from fieldmark.functional.transport import peers as _peers  # noqa: F401
from fieldmark.functional.transport import simplex as _simplex  # noqa: F401
from fieldmark.functional.transport import sinkhorn as _sinkhorn  # noqa: F401
from fieldmark.functional.transport.emd import TransportPlan, duality_gap, emd
from fieldmark.functional.transport.solver import SOLVERS, Solution, Solver

__all__ = ["SOLVERS", "Solution", "Solver", "TransportPlan", "duality_gap", "emd"]
