"""Multinomial logistic regression of many episodes at once, solved to the optimum.

An episode has few samples n and many features d, so everything happens in the span of its samples: W = A X with A of
way x n, logits F = A K + b with the Gram matrix K, and residual R = softmax(F) - Y + A / C, whose image R X is the
gradient. Centring the features changes nothing (the bias is free) and makes the bias a feature of its own, as long as
the strongest one. L-BFGS then needs one product with K a step, about ten steps at C = 1 on unit vectors, for all
episodes at once. The floor is K itself, 2 n^2 d operations: 20 million at 125 x 640. A preconditioner by Cholesky
factors was slower. Arrays are class-major, so that softmax runs along long contiguous rows.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.labels import check_labels, one_hot
from fieldmark.shapes import Float, Int, Tensor

CHUNK_BYTES = 32 * 2**20  # keeps a chunk near the caches, and allocations below where the C library maps fresh pages
MEMORY = 4  # pairs that L-BFGS keeps; 8 saves next to nothing
FLOAT32_STEPS = 100
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
    each = features.element_size() * (2 * n * d + n * min(n, 2 * d) + (8 + 4 * MEMORY) * n * way)
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
    if not bool(torch.isfinite(mean).all()):
        raise FieldmarkError("features are not finite; look for NaN, infinity or overflow in the backbone's output")
    centred = features - mean
    target = one_hot(labels, way, features.dtype).mT.contiguous()
    kernel = _Kernel(centred, mean)
    dual, logits, done = _lbfgs(kernel, target, C, goal, FLOAT32_STEPS if single else FLOAT64_STEPS)
    weight = dual @ centred
    bias = logits.mean(-1) - (weight @ mean.mT).squeeze(-1)
    if bool(done.all()):
        return weight, bias
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
    """Products with the Gram matrix of the centred features plus that of the bias feature."""

    def __init__(self, centred: Tensor, mean: Tensor) -> None:
        n, d = centred.shape[1:]
        # Many samples of few features go through the features: n x n would be the larger matrix.
        self.gram = centred @ centred.mT if n <= 2 * d else None
        self.centred = centred
        square = self.gram if self.gram is not None else centred.mT @ centred
        # The Frobenius norm stands for the largest eigenvalue: the bias feature may not stretch the spectrum.
        spread = torch.linalg.matrix_norm(square)
        self.bias = torch.where(spread > 0, spread / n, 1.0)[:, None, None]
        self.mean_norm = torch.linalg.vector_norm(mean, dim=(1, 2))
        if self.gram is not None:
            self.gram += self.bias

    def times(self, residual: Tensor) -> Tensor:
        """R -> R K', class-major."""
        if self.gram is not None:
            return residual @ self.gram
        return (residual @ self.centred) @ self.centred.mT + self.bias * residual.sum(-1, keepdim=True)

    def gradient_norm(self, residual: Tensor, image: Tensor) -> Tensor:
        """Norm of the gradient by the weights (of uncentred features, from above) and the bias."""
        bias = torch.linalg.vector_norm(residual.sum(-1), dim=-1)
        weight = (_dot(residual, image) - self.bias[:, 0, 0] * bias.square()).clamp_min(0).sqrt()
        return torch.hypot(weight + self.mean_norm * bias, bias)


class _Pair(NamedTuple):
    """One step of L-BFGS: the step in dual weights and in logits, the change of the residual and of its image."""

    step: Tensor
    move: Tensor
    change: Tensor
    change_image: Tensor
    inverse: Tensor  # 1 / <move, change>


def _lbfgs(kernel: _Kernel, target: Tensor, C: float, tol: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dual weights A (E, way, n), logits (E, way, n) and which episodes converged.

    Gradients are kept as residuals R with their images R K', steps as pairs (dual, logits). In the space of weights
    and bias the inner product of a step and a gradient is the plain one of the step's logits and the residual.
    """
    dual, logits = torch.zeros_like(target), torch.zeros_like(target)
    residual = 1 / target.shape[1] - target
    image = kernel.times(residual)
    goal = tol * kernel.gradient_norm(residual, image)
    done = torch.zeros_like(goal, dtype=torch.bool)
    scale = torch.zeros_like(goal)
    pairs: list[_Pair] = []
    for _ in range(steps):
        done = done | (kernel.gradient_norm(residual, image) <= goal)
        if bool(done.all()):
            break
        if not pairs:
            scale = _first_scale(residual, image, logits, C)
        step, move = _direction(residual, image, pairs, scale)
        step, move, new_residual = _line_search(dual, logits, residual, target, step, move, done, C)
        new_image = kernel.times(new_residual)
        change, change_image = new_residual - residual, new_image - image
        curvature, size = _dot(move, change), _dot(change, change_image)
        scale = torch.where((curvature > 0) & (size > 0), curvature / size, scale)
        pairs.append(_Pair(step, move, change, change_image, torch.where(curvature > 0, 1 / curvature, 0)))
        del pairs[:-MEMORY]
        dual, logits, residual, image = dual + step, logits + move, new_residual, new_image
    return dual, logits, done


def _first_scale(residual: Tensor, image: Tensor, logits: Tensor, C: float) -> Tensor:
    """Where the quadratic model along the gradient has its minimum."""
    probability = torch.softmax(logits, 1)
    spread = image - (probability * image).sum(1, keepdim=True)
    curvature = _dot(probability * spread, spread) + _dot(_centre(residual), image) / C
    return torch.where(curvature > 0, _dot(residual, image) / curvature, 1.0)


def _direction(residual: Tensor, image: Tensor, pairs: list[_Pair], scale: Tensor) -> tuple[Tensor, Tensor]:
    """The two-loop recursion of L-BFGS: ascent direction in the dual weights and in the logits."""
    step, move, factors = residual.clone(), image.clone(), []
    for pair in reversed(pairs):
        factor = (pair.inverse * _dot(pair.move, step))[:, None, None]
        factors.append(factor)
        step.addcmul_(pair.change, factor, value=-1)
        move.addcmul_(pair.change_image, factor, value=-1)
    step *= scale[:, None, None]
    move *= scale[:, None, None]
    for pair, factor in zip(pairs, reversed(factors), strict=True):
        factor = factor - (pair.inverse * _dot(pair.change, move))[:, None, None]
        step.addcmul_(pair.step, factor)
        move.addcmul_(pair.move, factor)
    # The constant part of a dual step is the bias's, which the penalty does not see; the logits keep it.
    return _centre(step), move


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
    """Length 1 if the slope falls by then, else secant steps to where it does; what is done stands still."""
    slope = _dot(move, residual)
    length = torch.where(done, 0.0, -1.0).to(target.dtype)
    for _ in range(20):
        new_step, new_move = step * length[:, None, None], move * length[:, None, None]
        new_residual = torch.softmax(logits + new_move, 1).sub_(target).add_(dual + new_step, alpha=1 / C)
        new_slope = _dot(move, new_residual)
        good = done | ((new_slope <= 0.9 * slope) & (new_slope >= -0.5 * slope))
        if bool(good.all()):
            break
        secant = (slope / (slope - new_slope)).nan_to_num(4.0, 4.0, 4.0)
        length = torch.where(good, length, length * torch.where(secant <= 0, 4.0, secant.clamp(0.05, 4.0)))
    return new_step, new_move, new_residual


def _centre(rows: Tensor) -> Tensor:
    return rows - rows.mean(-1, keepdim=True)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))
