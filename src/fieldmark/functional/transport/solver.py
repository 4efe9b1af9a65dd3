"""What every transport solver is: a batch of checked problems in, flow and potentials out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from fieldmark.registry import Registry
from fieldmark.shapes import Float, Tensor


class Solution(NamedTuple):
    """Flow and potentials of B problems; in float64, or in the cost's type where a solver works in that.

    Attributes:
        value: ``(B,)`` total cost of the flow.
        flow: ``(B, n, m)``, rows summing to the supply, columns to the demand.
        supply_potential: ``(B, n)`` dual variables u with ``u_i + v_j <= cost_ij``; None where a solver has none.
        demand_potential: ``(B, m)`` dual variables v.
    """

    value: Float[Tensor, "B"]
    flow: Float[Tensor, "B n m"]
    supply_potential: Float[Tensor, "B n"] | None
    demand_potential: Float[Tensor, "B m"] | None


class NotFiniteError(ValueError):
    """A cost is NaN or infinite; :func:`fieldmark.functional.emd` says which."""


class Solver(ABC):
    """Solves batches of balanced transport problems; its options are taken by the constructor.

    Attributes:
        checks_costs: Whether it finds costs that are not finite itself, while it reads them, and raises
            :class:`NotFiniteError`; it is then spared a look at all of them beforehand.
    """

    checks_costs: ClassVar[bool] = False

    @abstractmethod
    def solve(
        self,
        cost: Float[Tensor, "B n m"],
        supply: Float[Tensor, "B n"],
        demand: Float[Tensor, "B m"],
        *,
        unique: bool,
    ) -> Solution:
        """Solve problems that :func:`fieldmark.functional.emd` has checked.

        Args:
            cost: Finite costs.
            supply: Not negative.
            demand: Not negative, each row with the total of the supply up to the rounding of its type.
            unique: Whether the potentials have to be the ones that do not depend on the order of the nodes (they feed
                a gradient); where the optimum is not degenerate there are no others.
        """


SOLVERS: Registry[Solver] = Registry("solver")
