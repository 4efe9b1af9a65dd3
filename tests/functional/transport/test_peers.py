"""Solvers of other packages: their limits are said, and what they lack is named."""

from __future__ import annotations

import sys

import pytest
import torch

from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.functional.transport import emd


@pytest.mark.parametrize(("solver", "module", "package"), [("pot", "ot", "POT"), ("opencv", "cv2", "opencv-python")])
def test_a_missing_package_is_named(monkeypatch, solver, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"solver {solver} needs the package '{package}.*fieldmark\[bench\]"):
        emd(torch.ones(1, 2, 2), torch.ones(2), torch.ones(2), solver=solver)


def test_pot_says_when_its_pivots_run_out(problems):
    pytest.importorskip("ot", reason="POT is not installed (extra: bench)")
    with pytest.raises(FieldmarkError, match="POT gave up on problem 0 of emd"):
        emd(*problems("plane", 2, 60, 60), solver="pot", iterations=3)


def test_opencv_takes_costs_below_zero(problems, oracle):
    pytest.importorskip("cv2", reason="OpenCV is not installed (extra: bench)")
    cost, supply, demand = problems("signed", 10, 8, 8)
    value = emd(cost, supply, demand, solver="opencv").value
    torch.testing.assert_close(value, oracle(cost, supply, demand), rtol=0, atol=1e-5)
