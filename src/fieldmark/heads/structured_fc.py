"""Structured fully connected layer: descriptors of each class, fitted to the support set (DeepEMD with several shots).

The gradient is written out, so that all classes of all episodes take a step together, without autograd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from torch.nn.functional import cross_entropy

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.functional.emd_similarity import Weighting
from fieldmark.functional.transport import SOLVERS
from fieldmark.functional.transport.simplex import Simplex
from fieldmark.functional.weights import CODE_OFFSET, Variant, normalise_weights
from fieldmark.heads.base import HEADS, Head, Kind, check_option, check_positive
from fieldmark.heads.emd import class_mean
from fieldmark.shapes import Float, Int, Tensor

# Descriptors of the support sets that are fitted together: more only leaves the processor's cache.
_BYTES_AT_ONCE = 8 * 2**20
# Nodes from which on a start from the last solution saves time (docs/decisions/0005).
_WARM_FROM = 100


@HEADS.add(
    "structured_fc",
    "descriptors of each class, fitted to the support set under best matching",
    source="Zhang et al. 2020 (DeepEMD)",
)
class StructuredFC(Head):
    """Similarity, under best matching, to sets of descriptors that are fitted to the support images.

    Source: the structured fully connected layer of DeepEMD (Zhang et al. 2020), Algorithm 1. Each class starts as the
    mean of its support maps and learns by SGD on the cross-entropy of the support images. Differs: the mini-batches are
    drawn from the images in an order that their content gives, so that the result does not depend on the order in which
    they come. In training the result is differentiable through the start alone.

    Args:
        steps: Passes over the support set (variant ``"code"``) or updates (``"paper"``).
        batch_size: Images an update; None: 4 (``"code"``) or 5 (``"paper"``); 0: the whole support set.
        lr: Learning rate; 100 as in the official evaluation (its training has 0.1, which hardly moves anything).
        momentum: Of SGD.
        dampening: Of SGD.
        weight_decay: Of SGD.
        variant: ``"code"``: passes over the shuffled support set, similarity as the official code; ``"paper"``:
            mini-batches drawn anew for each update, similarity as the paper.
        weights: ``"cross_reference"`` or ``"equal"``.
        centre: Centre descriptors across channels for the costs; None: as the variant does.
        temperature: Factor on the similarity.
        solver: Name of a transport solver.
        weight_gradient: Let the gradient reach the node weights too (QPTH of the official code); slower.
        seed: Seed of the shuffling.

    Example:
        >>> support = torch.eye(4).view(1, 2, 2, 4)
        >>> StructuredFC(steps=2)(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    descriptors: Kind = "local"
    together: ClassVar[int] = 8

    def __init__(
        self,
        steps: int = 100,
        batch_size: int | None = None,
        lr: float = 100.0,
        momentum: float = 0.9,
        dampening: float = 0.9,
        weight_decay: float = 0.0,
        variant: Variant = "code",
        weights: Weighting = "cross_reference",
        centre: bool | None = None,
        temperature: float = 12.5,
        solver: str = "simplex",
        weight_gradient: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_option("structured_fc", "variant", variant, get_args(Variant))
        check_option("structured_fc", "weights", weights, get_args(Weighting))
        check_positive("structured_fc", lr=lr, temperature=temperature)
        batch_size = {"code": 4, "paper": 5}[variant] if batch_size is None else batch_size
        for name, value in (("steps", steps), ("batch_size", batch_size), ("momentum", momentum),
                            ("dampening", dampening), ("weight_decay", weight_decay)):  # fmt: skip
            if value < 0:
                raise FieldmarkError(f"{name} of head structured_fc is {value}; expected 0 or more")
        self.steps, self.batch_size, self.seed, self.variant = steps, batch_size, seed, variant
        self.descent = Descent(lr, momentum, dampening, weight_decay, weight_gradient)
        self.options: dict[str, Any] = {
            "variant": variant,
            "centre": variant == "code" if centre is None else centre,
            "weights": weights,
            "temperature": temperature,
            "solver": SOLVERS.create(solver),
        }

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Similarity to the fitted classes."""
        start = class_mean(support, labels, way)
        with torch.no_grad():
            images, classes = in_order_of_content(support, labels)
            step = max(1, _BYTES_AT_ONCE // (images[0].numel() * images.element_size())) if len(images) else 1
            fitted = torch.empty_like(start)
            for first in range(0, len(images), step):
                part = slice(first, first + step)
                batches = self.batches(support.shape[1])
                fitted[part] = fit(images[part], classes[part], start[part], batches, self.descent, **self.options)
        return functional.emd_similarity(query, start + (fitted - start.detach()), **self.options)

    def batches(self, images: int) -> Iterator[Tensor]:
        """Numbers of the support images of each update, the same for every episode."""
        generator = torch.Generator().manual_seed(self.seed)
        size = min(self.batch_size or images, images)
        for _ in range(self.steps):
            order = torch.randperm(images, generator=generator)
            yield from order.split(size) if self.variant == "code" else [order[:size]]


class Descent(NamedTuple):
    """How SGD moves; as :class:`torch.optim.SGD`."""

    lr: float = 100.0
    momentum: float = 0.9
    dampening: float = 0.9
    weight_decay: float = 0.0
    weight_gradient: bool = False


def in_order_of_content(
    support: Float[Tensor, "E S N C"], labels: Int[Tensor, "E S"]
) -> tuple[Float[Tensor, "E S N C"], Int[Tensor, "E S"]]:
    """The images of each episode sorted by the product of their mean descriptor with one fixed random vector.

    Example:
        >>> support, labels = torch.randn(1, 3, 2, 8), torch.tensor([[0, 1, 2]])
        >>> one, other = in_order_of_content(support, labels), in_order_of_content(support.flip(1), labels.flip(1))
        >>> torch.equal(one[0], other[0]), torch.equal(one[1], other[1])
        (True, True)
    """
    channels = support.shape[-1]
    probe = torch.randn(channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(support.device)
    order = (support.mean(2).double() @ probe).argsort(1)
    rows = torch.arange(len(support), device=support.device).unsqueeze(1)
    return support[rows, order], labels.gather(1, order)


def fit(
    support: Float[Tensor, "E S N C"],
    labels: Int[Tensor, "E S"],
    start: Float[Tensor, "E way N C"],
    batches: Iterable[Tensor],
    descent: Descent,
    **options: Any,
) -> Float[Tensor, "E way N C"]:
    """Descriptors of the classes after one SGD update for each batch of support images.

    Args:
        support: Local descriptors of the support images.
        labels: Their classes.
        start: Descriptors of the classes to begin with.
        batches: ``(B)`` numbers of the images of each update.
        descent: How to move.
        options: Of :func:`fieldmark.functional.emd_similarity`; ``solver`` made already.

    Example:
        >>> support, labels = torch.rand(1, 4, 3, 8), torch.tensor([[0, 0, 1, 1]])
        >>> options = dict(variant="code", centre=True, weights="equal", temperature=12.5, solver="simplex")
        >>> fit(support, labels, support[:, [0, 2]], [torch.arange(4)], Descent(), **options).shape
        torch.Size([1, 2, 3, 8])
    """
    classes = start.clone()
    moved = torch.zeros_like(classes)
    target = functional.one_hot(labels, start.shape[1], start.dtype)
    if support.shape[2] >= _WARM_FROM and isinstance(options["solver"], Simplex):
        options["solver"] = Simplex(warm_start=True)  # a fresh one: what it remembers belongs to this fit
    slope = (_AutogradSlope if descent.weight_gradient else _Slope)(support, target, options)
    for number, batch in enumerate(batches):
        # As SGD of torch: the first gradient is not dampened, and none without momentum.
        scale = 1.0 if number == 0 or not descent.momentum else 1.0 - descent.dampening
        if descent.weight_decay:
            moved.mul_(descent.momentum).add_(classes, alpha=scale * descent.weight_decay)
            slope.add(moved, classes, batch.to(support.device), 1.0, scale)
        else:
            slope.add(moved, classes, batch.to(support.device), descent.momentum, scale)
        classes.sub_(moved, alpha=descent.lr)
    return classes


class _Slope:
    """Gradient of the cross-entropy with flows and weights as constants, in two matrix products.

    One row more in every set holds its mean, so that the first product gives the node weights with the cosines.
    """

    def __init__(self, support: Tensor, target: Tensor, options: dict[str, Any]) -> None:
        self.target, self.options = target, options
        self.rows, self.length, self.shift = self._table(support)
        self.total = self.rows[:, :, -1].sum(-1)

    def _table(self, sets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Directions and, last, mean of the nodes (*, N + 1, C); length (*, N) and shift of the nodes."""
        nodes = sets.shape[-2]
        table = sets.new_empty(*sets.shape[:-2], nodes + 1, sets.shape[-1])
        unit = table[..., :nodes, :]
        table[..., nodes, :] = sets.mean(-2)
        shift = sets.mean(-1) if self.options["centre"] else sets.new_zeros(sets.shape[:-1])
        torch.sub(sets, shift.unsqueeze(-1), out=unit)
        length = torch.linalg.vector_norm(unit, dim=-1)
        unit.div_(length.clamp_min(1e-12).unsqueeze(-1))
        return table, length, shift

    def add(self, moved: Tensor, classes: Tensor, batch: Tensor, momentum: float, scale: float) -> None:
        """``moved = momentum * moved + scale * gradient``, in place."""
        nodes, temperature = classes.shape[-2], self.options["temperature"]
        rows = self.rows.index_select(1, batch)
        table, length, shift = self._table(classes)
        products = (rows.flatten(1, 2) @ table.flatten(1, 2).mT).view(*rows.shape[:3], *table.shape[1:3])
        cosines = products[:, :, :nodes, :, :nodes].transpose(2, 3).contiguous()
        supply, demand = self._weights(products, batch, length, shift, table[:, :, -1].sum(-1))
        self._say_which(batch, cosines.shape)
        plan = functional.emd(1 - cosines, supply, demand, solver=self.options["solver"])
        logits = temperature - (temperature / nodes) * plan.value
        residual = torch.softmax(logits, -1) - self.target.index_select(1, batch)
        factor = residual * (scale * temperature / nodes / len(batch))
        # A node without direction has no slope.
        inverse = torch.where(length > 1e-12, 1 / length, 0)
        pull = plan.flow * factor[..., None, None] * inverse[:, None, :, None]
        along = (pull * cosines).sum((1, 3))
        spread = pull.new_zeros(*rows.shape[:3], *pull.shape[2:3], nodes)
        spread[:, :, :nodes] = pull.transpose(2, 3)
        moved.flatten(1, 2).baddbmm_(spread.flatten(1, 2).flatten(2).mT, rows.flatten(1, 2), beta=momentum)
        moved.addcmul_(along.unsqueeze(-1), table[:, :, :nodes], value=-1)

    def _say_which(self, batch: Tensor, shape: torch.Size) -> None:
        """Tell a solver that remembers which images, and so which problems, come this time."""
        solver, images = self.options["solver"], self.rows.shape[1]
        if isinstance(solver, Simplex) and solver.warm_start:
            episodes, way = torch.arange(shape[0]), torch.arange(shape[2])
            numbers = (episodes[:, None, None] * images + batch.cpu()[:, None]) * len(way) + way
            solver.identify(numbers, shape[0] * images * len(way))

    def _weights(
        self, products: Tensor, batch: Tensor, length: Tensor, shift: Tensor, total: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights of both sides (E, B, way, N), from products with directions: u = length * direction + shift."""
        nodes = products.shape[-1] - 1
        mine = products[:, :, :nodes, :, nodes].transpose(2, 3)
        theirs = products[:, :, nodes, :, :nodes]
        if self.options["weights"] == "equal":
            return torch.ones_like(mine), torch.ones_like(theirs)
        my_length, my_shift, my_total = (one.index_select(1, batch) for one in (self.length, self.shift, self.total))
        mine = mine * my_length.unsqueeze(2) + my_shift.unsqueeze(2) * total[:, None, :, None]
        theirs = theirs * length.unsqueeze(1) + shift.unsqueeze(1) * my_total[..., None, None]
        offset = CODE_OFFSET if self.options["variant"] == "code" else 0.0
        return tuple(normalise_weights(one.relu() + offset, nodes) for one in (mine, theirs))  # type: ignore[return-value]


class _AutogradSlope:
    """Gradient of the cross-entropy that reaches the weights too."""

    def __init__(self, support: Tensor, target: Tensor, options: dict[str, Any]) -> None:
        # What was made in inference mode cannot enter a graph; a copy made outside it can.
        with torch.inference_mode(False):
            self.support, self.target, self.options = support.clone(), target.clone(), options

    def add(self, moved: Tensor, classes: Tensor, batch: Tensor, momentum: float, scale: float) -> None:
        """``moved = momentum * moved + scale * gradient``, in place."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = classes.detach().clone().requires_grad_()
            logits = functional.emd_similarity(self.support[:, batch], leaf, **self.options)
            loss = cross_entropy(logits.flatten(0, 1), self.target[:, batch].flatten(0, 1), reduction="sum")
            (slope,) = torch.autograd.grad(loss / len(batch), leaf)
        moved.mul_(momentum).add_(slope, alpha=scale)
