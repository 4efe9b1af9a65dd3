"""What people use today: loops over OpenCV and POT, and the formulas of DeepEMD's official head."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from fieldmark.benchmarks.transport_problems import Problems, single_precision
from fieldmark.errors import MissingExtraError
from fieldmark.shapes import Float, Tensor

TEMPERATURE = 12.5
PIVOTS = 10_000_000  # more than POT's own limit, which large problems might reach

_PACKAGES = {"cv2": "opencv-python-headless", "ot": "POT"}

Loop = Callable[[Problems], Callable[[], list[np.ndarray]]]


def require(package: str) -> Any:
    """A peer's package.

    Raises:
        MissingExtraError: If it is not there.

    Example:
        >>> require("json").__name__
        'json'
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(_PACKAGES[package], "bench", "fieldmark bench transport") from None


def opencv_loop(problems: Problems) -> Callable[[], list[np.ndarray]]:
    """Flows by ``cv2.EMD``; its float32 arrays are made beforehand."""
    cv2 = require("cv2")
    given = [
        (supply[:, None], demand[:, None], cost)
        for cost, supply, demand in zip(*(one.numpy() for one in single_precision(problems)), strict=True)
    ]
    return lambda: [cv2.EMD(a, b, cv2.DIST_USER, cost=cost)[2] for a, b, cost in given]


def pot_loop(problems: Problems) -> Callable[[], list[np.ndarray]]:
    """Flows by ``ot.emd``; its float64 arrays are made beforehand."""
    ot = require("ot")
    given = list(zip(*(one.numpy() for one in problems), strict=True))
    return lambda: [ot.emd(a, b, cost, numItermax=PIVOTS) for cost, a, b in given]


def tensor_pot_loop(problems: Problems) -> Callable[[], list[np.ndarray]]:
    """Flows by ``ot.emd`` with torch tensors."""
    ot = require("ot")
    given = list(zip(*problems, strict=True))
    return lambda: [ot.emd(a, b, cost, numItermax=PIVOTS) for cost, a, b in given]


def bare_pot_loop(problems: Problems) -> Callable[[], list[np.ndarray]]:
    """Flows by the compiled function inside of ``ot.emd``, without its checks."""
    require("ot")
    from ot.lp.emd_wrap import emd_c

    given = list(zip(*(one.numpy() for one in problems), strict=True))
    return lambda: [emd_c(a, b, cost, PIVOTS, 1)[0] for cost, a, b in given]


LOOPS: dict[str, Loop] = {
    "OpenCV": opencv_loop,
    "ot.emd": pot_loop,
    "ot.emd on tensors": tensor_pot_loop,
    "emd_c": bare_pot_loop,
}


def available_loops() -> tuple[dict[str, Loop], list[str]]:
    """The loops whose packages are there, and a line for each package that is not."""
    loops, missing = {}, []
    for name, loop in LOOPS.items():
        try:
            require("cv2" if loop is opencv_loop else "ot")
            loops[name] = loop
        except MissingExtraError as error:
            missing.append(str(error))
    return loops, list(dict.fromkeys(missing))


def official_head(query: Float[Tensor, "Q N C"], support: Float[Tensor, "S N C"]) -> Float[Tensor, "Q S"]:
    """Logits of DeepEMD's official head in evaluation, by its formulas and with its memory.

    Written from the formulas alone, and held to the logits that the official code gave (tests/benchmarks). All pairs of
    descriptors of all pairs of images are laid out in memory, (Q, S, N, N, C), for the cosines, and likewise for the
    weights; OpenCV then solves pair by pair. Flows and weights are constants in the graph.
    """
    cv2 = require("cv2")
    queries, nodes, channels = query.shape
    shape = (queries, len(support), nodes, nodes, channels)
    left = (query - query.mean(-1, keepdim=True))[:, None, :, None].expand(shape).contiguous()
    right = (support - support.mean(-1, keepdim=True))[None, :, None].expand(shape).contiguous()
    similarity = cosine_similarity(left, right, dim=-1)
    supply = _official_weights(query.detach(), support.detach())
    demand = _official_weights(support.detach(), query.detach()).transpose(0, 1)
    cost = (1 - similarity.detach()).numpy()
    flow = np.empty_like(cost)
    for pair in np.ndindex(*shape[:2]):
        a, b = (_official_scale(one[pair].numpy()) for one in (supply, demand))
        flow[pair] = cv2.EMD(a, b, cv2.DIST_USER, cost=cost[pair])[2]
    return (similarity * torch.from_numpy(flow)).sum((-2, -1)) * (TEMPERATURE / nodes)


def _official_weights(sets: Tensor, others: Tensor) -> Tensor:
    """(A, N, C), (B, N, C) -> (A, B, N)."""
    shape = (len(sets), len(others), *sets.shape[1:])
    left = sets[:, None].expand(shape).contiguous()
    right = others.mean(1)[None, :, None].expand(shape).contiguous()
    return (left * right).sum(-1).relu() + 1e-3


def _official_scale(weights: np.ndarray) -> np.ndarray:
    """What the official code hands to OpenCV: a little more, and of total N."""
    weights = np.maximum(weights, 0) + np.float32(1e-5)
    return (weights * (len(weights) / weights.sum()))[:, None].astype(np.float32)
