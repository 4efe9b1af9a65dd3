"""From nearly optimal to feasible: what solvers that stop at a tolerance do last, so that their error is known."""

from __future__ import annotations

import torch

from fieldmark.shapes import Float, Tensor


def balanced_demand(supply: Float[Tensor, "B n"], demand: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
    """The demand scaled to the total of the supply, which it has up to the rounding of its type.

    Example:
        >>> balanced_demand(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
        tensor([[0.8000, 3.2000]])
    """
    total = demand.sum(-1, keepdim=True)
    return demand * torch.where(total > 0, supply.sum(-1, keepdim=True) / total, 1.0)


def feasible_flow(
    flow: Float[Tensor, "B n m"], supply: Float[Tensor, "B n"], demand: Float[Tensor, "B m"]
) -> Float[Tensor, "B n m"]:
    """The nearest simple flow with exactly the given row and column sums.

    Rows, then columns, that carry too much are scaled down; what is then missing is added in proportion to what each
    row and column lacks. It moves at most twice the error of the row and column sums.

    Source: Altschuler et al. 2017, algorithm 2.

    Example:
        >>> feasible_flow(torch.ones(1, 2, 2), torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]]))
        tensor([[[0.5000, 0.5000],
                 [1.5000, 1.5000]]])
    """
    for axis, wanted in ((-1, supply), (-2, demand)):
        sums = flow.sum(axis)
        # A row without flow has a ratio of 1 and stays as it is.
        flow = flow * torch.where(sums > wanted, wanted / sums, 1.0).unsqueeze(axis)
    lacks = (supply - flow.sum(-1)).clamp_min(0), (demand - flow.sum(-2)).clamp_min(0)
    total = lacks[0].sum(-1, keepdim=True)
    share = torch.where(total > 0, lacks[0] / total, 0.0)
    return flow + share.unsqueeze(-1) * lacks[1].unsqueeze(-2)


def feasible_potentials(
    cost: Float[Tensor, "B n m"], supply: Float[Tensor, "B n"], potential: Float[Tensor, "B n"]
) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B m"]]:
    """The largest prices with ``u_i + v_j <= cost_ij`` everywhere that a supply potential allows.

    First v by the c-transform, ``v_j = min_i (cost_ij - u_i)`` over rows with a supply, then u likewise over all
    columns. Optimal potentials stay what they are, others become better, and nodes of weight 0, whose potentials
    no solver needs, get the price at which one more unit would move.

    Example:
        >>> cost, supply = torch.tensor([[[0.0, 2.0], [3.0, 1.0]]]), torch.tensor([[1.0, 0.0]])
        >>> feasible_potentials(cost, supply, torch.tensor([[0.0, 9.0]]))
        (tensor([[ 0., -1.]]), tensor([[0., 2.]]))
    """
    counts = supply > 0
    start = torch.where(counts, potential, 0.0)
    counts = counts | ~counts.any(-1, keepdim=True)  # a problem without weights: all rows, at a price of 0
    reduced = (cost - start.unsqueeze(-1)).masked_fill(~counts.unsqueeze(-1), torch.inf)
    v = reduced.amin(-2)
    return (cost - v.unsqueeze(-2)).amin(-1), v
