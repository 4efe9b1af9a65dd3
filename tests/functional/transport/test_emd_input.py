"""What the transport function refuses, and what it takes although it looks odd."""

from __future__ import annotations

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport import emd


def problem(**changes):
    base = {"cost": torch.rand(2, 3, 4), "supply": torch.full((2, 3), 4.0), "demand": torch.full((2, 4), 3.0)}
    return {**base, "solver": "sinkhorn", **changes}


def with_entry(name, place, value):
    tensor = problem()[name].clone()
    tensor[place] = value
    return problem(**{name: tensor})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (with_entry("cost", (1, 2, 3), torch.nan), r"^cost of emd is nan at \(1, 2, 3\); expected finite numbers$"),
        (with_entry("cost", (0, 0, 1), -torch.inf), r"^cost of emd is -inf at \(0, 0, 1\)"),
        (with_entry("supply", (1, 0), torch.nan), r"^supply of emd is nan at \(1, 0\); expected finite .*, 0 or more$"),
        (with_entry("supply", (0, 2), -1.0), r"^supply of emd is -1.0 at \(0, 2\)"),
        (with_entry("demand", (1, 3), torch.inf), r"^demand of emd is inf at \(1, 3\)"),
        (
            with_entry("demand", (1, 3), 3.125),
            r"^supply and demand of problem \(1,\) of emd sum to 12 and 12.125; expected",
        ),
        (problem(demand=torch.full((4,), 2.0)), r"problem \(0,\) of emd sum to 12 and 8; expected equal totals"),
        (problem(solver="simplx"), "^unknown solver 'simplx'; did you mean 'simplex'"),
        (problem(epsilom=0.1), "^unknown option of solver 'sinkhorn' 'epsilom'; did you mean 'epsilon'"),
        (problem(epsilon=0.0), "^epsilon of solver sinkhorn is 0.0; expected"),
        (problem(iterations=0), "^iterations of solver sinkhorn is 0; expected at least 1"),
        (problem(tolerance=-1.0), "^tolerance of solver sinkhorn is -1.0; expected a number above 0"),
        (problem(solver="interior_point", l2=-1.0), "^l2 of solver interior_point is -1.0; expected at least 0"),
        (
            problem(solver="interior_point", iterations=2),
            "left problem 0 with an error of .* after 2 iterations; raise",
        ),
        (problem(solver="pot", iterations=0), "^iterations of solver pot is 0; expected at least 1"),
    ],
)
def test_bad_input_is_named(given, message):
    with pytest.raises(FieldmarkError, match=message) as caught:
        emd(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            problem(cost=torch.rand(2, 3, 5)),
            r"cost \(2, 3, 5\), supply \(2, 3\), demand \(2, 4\); expected \(\*, n, m\)",
        ),
        (problem(cost=torch.rand(3)), r"cost \(3,\), supply .*; expected \(\*, n, m\), \(\*, n\), \(\*, m\)"),
        (problem(supply=torch.tensor(1.0)), r"supply \(\), .*; expected"),
        (problem(cost=torch.rand(2, 0, 4), supply=torch.rand(2, 0)), "a side without nodes has nothing to move"),
        (problem(cost=torch.rand(3, 3, 4)), "the leading axes do not broadcast"),
        (problem(cost=torch.ones(2, 3, 4, dtype=torch.int64)), "cost of type torch.int64; expected a floating-point"),
        (problem(demand=torch.rand(2, 4, device="meta")), "tensors on cpu, cpu and meta; expected one device"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_shapes_devices_and_types_that_do_not_fit(given, message):
    with pytest.raises(FieldmarkError, match=message):
        emd(**given)


def test_costs_whose_sum_is_too_large_are_no_error():
    """The quick look at the sum is not the last word."""
    for dtype, high in ((torch.float32, 3e38), (torch.float16, 6e4)):
        cost = torch.full((3, 40, 50), high, dtype=dtype)
        plan = emd(cost, torch.full((40,), 1 / 40), torch.full((50,), 1 / 50), solver="pot")
        torch.testing.assert_close(plan.value, torch.full((3,), high, dtype=dtype))


def test_totals_equal_up_to_rounding_are_balanced(problems):
    """Weights that were normalised in float32 are not refused, and the flow has the totals of the supply."""
    cost, supply, demand = problems("random", 50, 25, 30)
    supply, demand = (one.float() / one.float().sum(-1, keepdim=True) for one in (supply, demand))
    for solver in ("interior_point", "sinkhorn"):
        plan = emd(cost, supply, demand, solver=solver)
        torch.testing.assert_close(plan.flow.sum(-1), supply.double(), rtol=0, atol=1e-12)
        torch.testing.assert_close(plan.flow.sum(-2), demand.double(), rtol=0, atol=1e-6)
