"""Multinomial logistic regression of many episodes at once, solved to the optimum.

An episode has few samples n and many features d, so everything happens in the span of its samples. With W = A X (A is
way x n), logits F = A K + b and residual R = softmax(F) - Y + A / C, the gradient is R X (and its row sums, for the
bias). The Hessian at zero is (I - 11'/way) kron (K / way + I / C): its inverse, from one Cholesky factor an episode,
makes the first step an exact Newton step and leaves L-BFGS about ten more, each one product with an n x n matrix.
Centring the features changes nothing (the bias is free) and decouples the bias. Arrays are class-major, so that
softmax runs over a strided axis with long contiguous rows.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.labels import check_labels, one_hot
from fieldmark.shapes import Float, Int, Tensor

CHUNK_BYTES = 32 * 2**20  # keeps a chunk near the caches, and allocations below where the C library maps fresh pages
MEMORY = 4  # pairs that L-BFGS keeps; 8 saves no iteration at C = 1
FLOAT32_STEPS = 60
FLOAT64_STEPS = 2000


class LinearModel(NamedTuple):
    """Weights and biases of one linear classifier an episode."""

    weight: Float[Tensor, "E way d"]
    bias: Float[Tensor, "E way"]


def logistic_regression(
    features: Float[Tensor, "E n d"],
    labels: Int[Tensor, "E n"],
    way: int,
    C: float = 1.0,
    tol: float | None = None,
) -> LinearModel:
    """Minimise the summed cross-entropy plus ``|W|^2 / (2 C)``, the bias unpenalised, for every episode.

    This is scikit-learn's ``LogisticRegression(C=C)`` for three and more classes, and the same softmax model for two
    (scikit-learn solves the binary one there). No gradient flows through the solution.

    Args:
        features: n samples of d features for each of E episodes. float64 is solved in float64; float32 in float32,
            and an episode that does not converge there once more in float64. Other types become float32.
        labels: Their classes, 0 to way - 1; every class needs a sample.
        way: Number of classes.
        C: Inverse strength of the penalty, above 0.
        tol: Stop an episode when the norm of its gradient is below this fraction of the norm at zero weights. The
            default is 1e-5 in float32 and 1e-10 in float64. The weights are then within C times that gradient norm
            of the optimum (the objective is 1/C-strongly convex in them).

    Returns:
        ``weight`` (E, way, d) and ``bias`` (E, way), which sums to zero over the classes.

    Raises:
        FieldmarkError: C or tol is not above 0, labels are out of range or leave a class empty, or features are not
            finite.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[0.0], [1.0], [3.0], [4.0]]])
        >>> weight, bias = logistic_regression(x, torch.tensor([[0, 0, 1, 1]]), way=2)
        >>> (x @ weight.mT + bias[:, None]).argmax(-1)
        tensor([[0, 0, 1, 1]])
    """
    if not C > 0:
        raise FieldmarkError(f"C is {C}; expected a number above 0")
    if tol is not None and not tol > 0:
        raise FieldmarkError(f"tol is {tol}; expected a number above 0")
    if labels.shape != features.shape[:2]:
        raise FieldmarkError(f"labels {tuple(labels.shape)}; expected {tuple(features.shape[:2])}, one a sample")
    check_labels(labels, way)
    episodes, n, d = features.shape
    features = features.detach()
    if features.dtype not in (torch.float32, torch.float64):
        features = features.float()
    weight = features.new_empty(episodes, way, d)
    bias = features.new_empty(episodes, way)
    each = features.element_size() * (2 * n * d + 3 * n * min(n, d) + (8 + 3 * MEMORY) * n * way)
    chunk = max(1, CHUNK_BYTES // each)
    for start in range(0, episodes, chunk):
        part = slice(start, start + chunk)
        weight[part], bias[part] = _solve(features[part], labels[part], way, C, tol)
    return LinearModel(weight, bias)


def _solve(features: Tensor, labels: Tensor, way: int, C: float, tol: float | None) -> tuple[Tensor, Tensor]:
    """One chunk; what float32 cannot bring to the tolerance is solved in float64."""
    single = features.dtype == torch.float32
    goal = tol if tol is not None else 1e-5 if single else 1e-10
    mean = features.mean(1, keepdim=True)
    centred = features - mean
    target = one_hot(labels, way, features.dtype).mT.contiguous()
    system: _Kernel | _Thin = (_Kernel if features.shape[1] <= 2 * features.shape[2] else _Thin)(centred, way, C)
    if not bool(system.finite.all()):
        where = int(system.finite.logical_not().nonzero()[0])
        raise FieldmarkError(f"features of episode {where} of this batch are not finite; look for NaN or overflow")
    dual, logits, done = _lbfgs(system, target, mean, C, goal, FLOAT32_STEPS if single else FLOAT64_STEPS)
    weight = dual @ centred
    bias = logits.mean(-1) - (weight @ mean.mT).squeeze(-1)
    if not bool(done.all()):
        if single:
            left = done.logical_not().nonzero().squeeze(1)
            again = _solve(features[left].double(), labels[left], way, C, goal)
            weight[left], bias[left] = again[0].float(), again[1].float()
        else:
            warnings.warn(
                f"logistic regression stopped after {FLOAT64_STEPS} steps above the gradient tolerance {goal:g};"
                " lower C, scale the features or raise tol",
                RuntimeWarning,
                stacklevel=3,
            )
    return weight, bias


class _Kernel:
    """The inverse Hessian at zero and the Gram matrix, both n x n: for few samples of many features."""

    def __init__(self, centred: Tensor, way: int, C: float) -> None:
        n = centred.shape[1]
        self.gram = centred @ centred.mT
        self.finite = torch.isfinite(self.gram.diagonal(dim1=1, dim2=2)).all(1)
        shifted = self.gram / way
        shifted.diagonal(dim1=1, dim2=2).add_(1 / C)
        # The constant vector, which belongs to the bias, is an eigenvector of eigenvalue 1 / C: take it out.
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(shifted)[0]).sub_(C / n)

    def precondition(self, residual: Tensor) -> Tensor:
        return residual @ self.inverse

    def squared_gradient(self, residual: Tensor) -> Tensor:
        return _dot(residual @ self.gram, residual).clamp_min(0)


class _Thin:
    """The same through d x d matrices (Woodbury): for many samples of few features."""

    def __init__(self, centred: Tensor, way: int, C: float) -> None:
        self.centred, self.way, self.C = centred, way, C
        shifted = centred.mT @ centred
        self.finite = torch.isfinite(shifted.diagonal(dim1=1, dim2=2)).all(1)
        shifted.div_(way).diagonal(dim1=1, dim2=2).add_(1 / C)
        factor = torch.linalg.cholesky_ex(shifted)[0]
        self.whitened = torch.linalg.solve_triangular(factor, centred.mT, upper=False)

    def precondition(self, residual: Tensor) -> Tensor:
        seen = (residual @ self.whitened.mT) @ self.whitened
        return self.C * (residual - residual.mean(-1, keepdim=True) - seen / self.way)

    def squared_gradient(self, residual: Tensor) -> Tensor:
        return (residual @ self.centred).square().sum((1, 2))


def _lbfgs(
    system: _Kernel | _Thin, target: Tensor, mean: Tensor, C: float, tol: float, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Dual weights A (E, way, n), logits (E, way, n) and which episodes converged.

    Gradients are residuals, steps are pairs (dual, logits): the inner product of step and gradient in the space of
    weights and bias is then the plain one of the step's logits and the residual, and K M^-1 = way (I - M^-1 / C)
    gives the logits of a preconditioned residual without another product.
    """
    way = target.shape[1]
    mean_norm = torch.linalg.vector_norm(mean, dim=(1, 2))
    dual, logits = torch.zeros_like(target), torch.zeros_like(target)
    residual = 1 / way - target
    goal = tol * _gradient_norm(system, residual, mean_norm)
    done = torch.zeros_like(goal, dtype=torch.bool)
    pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for _ in range(steps):
        done = done | (_gradient_norm(system, residual, mean_norm) <= goal)
        if bool(done.all()):
            break
        step, move = _direction(system, residual, pairs, way, C)
        step, move, new_residual = _line_search(dual, logits, residual, target, step, move, done, C)
        change = new_residual - residual
        curvature = _dot(move, change)
        pairs.append((step, move, change, torch.where(curvature > 0, 1 / curvature, 0)))
        del pairs[:-MEMORY]
        dual, logits, residual = dual + step, logits + move, new_residual
    return dual, logits, done


def _direction(
    system: _Kernel | _Thin, residual: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]], way: int, C: float
) -> tuple[Tensor, Tensor]:
    """The two-loop recursion of L-BFGS: ascent direction in the dual weights and in the logits."""
    rest, factors = residual.clone(), []
    for _, move, change, inverse in reversed(pairs):
        factor = (inverse * _dot(move, rest))[:, None, None]
        factors.append(factor)
        rest.addcmul_(change, factor, value=-1)
    step = system.precondition(rest)
    move = (rest - step / C).mul_(way)
    for (old_step, old_move, change, inverse), factor in zip(pairs, reversed(factors), strict=True):
        factor = factor - (inverse * _dot(change, move))[:, None, None]
        step.addcmul_(old_step, factor)
        move.addcmul_(old_move, factor)
    return step, move


def _line_search(
    dual: Tensor,
    logits: Tensor,
    residual: Tensor,
    target: Tensor,
    step: Tensor,
    move: Tensor,
    done: Tensor,
    C: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Length 1 if the slope falls by then, else secant steps to where it does; episodes that are done stand still."""
    slope = _dot(move, residual)
    length = torch.where(done, 0.0, -1.0).to(target.dtype)
    for _ in range(20):
        scaled_step, scaled_move = step * length[:, None, None], move * length[:, None, None]
        new_residual = torch.softmax(logits + scaled_move, 1) - target + (dual + scaled_step) / C
        new_slope = _dot(move, new_residual)
        good = done | ((new_slope <= 0.9 * slope) & (new_slope >= -0.5 * slope))
        if bool(good.all()):
            break
        secant = (slope / (slope - new_slope)).nan_to_num(4.0, 4.0, 4.0)
        length = torch.where(good, length, length * torch.where(secant <= 0, 4.0, secant.clamp(0.05, 4.0)))
    return scaled_step, scaled_move, new_residual


def _gradient_norm(system: _Kernel | _Thin, residual: Tensor, mean_norm: Tensor) -> Tensor:
    """Norm of the gradient by weight (of uncentred features, from above) and bias."""
    bias = torch.linalg.vector_norm(residual.sum(-1), dim=-1)
    return torch.hypot(system.squared_gradient(residual).sqrt() + mean_norm * bias, bias)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))
