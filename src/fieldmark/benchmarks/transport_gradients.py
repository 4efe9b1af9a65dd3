"""Transport forward and backward, with gradients for costs and weights, against QPTH in an environment of its own.

Both sides get the same costs and raw weights of 50 pairs of images in float64, scale the weights to N, solve, and
differentiate the sum of the values. QPTH factors matrices of N^2 variables and N^2 + 2 N inequalities some ten times a
problem.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldmark import functional
from fieldmark.benchmarks.timing import Side, interleaved, make_row
from fieldmark.benchmarks.transport_problems import Noise, Pictures, Problems, make_problems
from fieldmark.errors import FieldmarkError
from fieldmark.functional.weights import normalise_weights
from fieldmark.shapes import Tensor

BATCHES = ((9, 50), (16, 50))
TARGETS = {16: 5000.0}
LIMIT = 900  # seconds that the script may take
NAMES = ("cost", "supply", "demand")


def jobs(pictures: Pictures, python: str | None, repeats: int) -> list[Any]:
    """One measurement for each number of nodes and kind of features, none without an interpreter."""
    return [
        partial(rows, source, nodes, count, python, repeats)
        for nodes, count in BATCHES
        for source in (Noise(), pictures)
        if python
    ]


def rows(source: Noise | Pictures, nodes: int, count: int, python: str, repeats: int) -> list[dict[str, Any]]:
    """The row of one number of nodes; our side is measured before and after QPTH."""
    problems = make_problems(source, nodes, count)
    every = torch.get_num_threads()
    sides = {"ours": Side(lambda: ours(problems), every), "ours, one thread": Side(lambda: ours(problems))}
    ours(problems)  # loads what was compiled
    before = interleaved(sides, (repeats + 1) // 2)
    answers = qpth(problems, python, repeats)
    after = interleaved(sides, (repeats + 1) // 2)
    seconds = {name: before[name].wall + after[name].wall for name in sides}
    return [
        make_row(
            f"{count} x {nodes} nodes forward and backward, {source.images}; against QPTH",
            seconds["ours"],
            answers["seconds"].tolist(),
            count,
            "problems/s",
            TARGETS.get(nodes),
            {"ours, one thread": seconds["ours, one thread"]},
            case="gradients",
            nodes=nodes,
            problems=count,
            images=source.images,
            threads={"ours": every, "peer": 1},
            against="QPTH",
            problems_that_agree=agreement(problems, answers),
        )
    ]


def ours(problems: Problems, solver: str = "simplex") -> tuple[Tensor, list[Tensor]]:
    """Values, and gradients for cost and raw weights."""
    cost, supply, demand = (one.clone().requires_grad_() for one in problems)
    scaled = [normalise_weights(one, one.shape[1]) for one in (supply, demand)]
    value = functional.emd(cost, scaled[0], scaled[1], solver=solver).value
    return value.detach(), list(torch.autograd.grad(value.sum(), (cost, supply, demand)))


def agreement(problems: Problems, answers: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """In how many problems QPTH, and POT by its flows and duals, have our values (to 1e-6) and gradients (to 1e-4).

    At some optima QPTH's backward pass divides by slacks that are all but 0, and its gradients become huge.
    """
    value, gradients = ours(problems)
    pot_value, pot_gradients = ours(problems, "pot")
    theirs = {
        "QPTH": (answers["value"], [answers[f"{name}_gradient"] for name in NAMES]),
        "POT": (pot_value.numpy(), [one.numpy() for one in pot_gradients]),
    }
    return {
        name: {
            "value": int(_alike(value, their_value, 1e-6).sum()),
            "gradients": int(
                torch.stack([_alike(*pair, 1e-4) for pair in zip(gradients, others, strict=True)]).all(0).sum()
            ),
        }
        for name, (their_value, others) in theirs.items()
    }


def _alike(one: Tensor, other: np.ndarray, tolerance: float) -> Tensor:
    """(B,) which problems differ by at most the tolerance."""
    return ((one - torch.from_numpy(other)).abs().reshape(len(one), -1) <= tolerance).all(1)


def qpth(problems: Problems, python: str, repeats: int) -> dict[str, np.ndarray]:
    """What the script ``qpth_peer.py`` answers: seconds of each repeat, values and gradients.

    Raises:
        FieldmarkError: If it does not run.
    """
    script = Path(__file__).with_name("qpth_peer.py")
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder, "problems.npz"), Path(folder, "answers.npz")
        np.savez(given, cost=problems.cost.numpy(), supply=problems.supply.numpy(), demand=problems.demand.numpy())
        # Isolated: neither our modules nor our environment's paths. With more threads its LU factors hang.
        command = [python, "-I", "-W", "ignore", str(script), str(given), str(answers), str(repeats)]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT, env=os.environ | threads)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise FieldmarkError(
                f"--qpth-python {python}: QPTH does not run there ({said[-1] if said else 'no message'}); expected the"
                " Python of an environment with torch, qpth and numpy < 2"
            ) from None
        with np.load(answers) as file:
            return dict(file)
