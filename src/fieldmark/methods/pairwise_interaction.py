"""The pairwise interaction of API-Net: a mutual vector of two images, gates, and features attended by the gates."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import nn

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.compact_bilinear import compact_bilinear
from fieldmark.shapes import Float, Tensor

Mutual = Literal["mlp", "individual", "compact_bilinear", "subtract_square", "sum", "product", "weight_attention"]
Gate = Literal["pair", "single"]


class Interaction(NamedTuple):
    """What two images make of each other; all ``(P, D)``.

    Attributes:
        mutual: The mutual vector x_m; None for ``mutual="individual"``, which has none.
        gates: g_1 and g_2; the same one twice for ``gate="single"``.
        own: x_1^self and x_2^self.
        crossed: x_1^other and x_2^other; None for ``gate="single"``.
    """

    mutual: Tensor | None
    gates: tuple[Tensor, Tensor]
    own: tuple[Tensor, Tensor]
    crossed: tuple[Tensor, Tensor] | None


class PairwiseInteraction(nn.Module):
    """Mutual vector, gates and residual attention of pairs of pooled features.

    Source: API-Net (Zhuang et al. 2020), eq. 1 to 6; section 4.1 (Tables 2 and 3) for the other ways.

    Args:
        channels: Length D of the features.
        mutual: How x_m is made of x_1 and x_2: ``"mlp"`` (FC 2D to hidden, FC hidden to D, no non-linearity between),
            ``"individual"`` (none: g_i = sigmoid(f(x_i)) with f of layers D, hidden, D), ``"compact_bilinear"`` (tensor
            sketch of length D with fixed random hashes), ``"subtract_square"``, ``"sum"``, ``"product"``, or
            ``"weight_attention"`` (a weighted mean, weights by a softmax over FC 2D to hidden, FC hidden to 2).
        gate: ``"pair"``: g_i = sigmoid(x_m * x_i); ``"single"``: one gate sigmoid(x_m), and no crossed features.
        hidden: Width of the hidden layers.
        dropout: Share of the hidden values that is dropped in training.

    Raises:
        FieldmarkError: For an unknown name, a number out of range, or a single gate without a mutual vector.

    Example:
        >>> torch.manual_seed(0) and None
        >>> interact = PairwiseInteraction(4, mutual="sum")
        >>> found = interact(torch.zeros(1, 4), torch.ones(1, 4))
        >>> found.gates[0], found.own[1]
        (tensor([[0.5000, 0.5000, 0.5000, 0.5000]]), tensor([[1.7311, 1.7311, 1.7311, 1.7311]]))
    """

    places: Tensor
    signs: Tensor

    def __init__(
        self, channels: int, mutual: Mutual = "mlp", gate: Gate = "pair", hidden: int = 512, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_interaction(mutual, gate, hidden, dropout)
        self.mutual, self.gate, self.channels = mutual, gate, channels
        widths = {
            "mlp": (2 * channels, channels),
            "individual": (channels, channels),
            "weight_attention": (2 * channels, 2),
        }
        self.layers: nn.Sequential | None = None
        if mutual in widths:
            given, made = widths[mutual]
            self.layers = nn.Sequential(nn.Linear(given, hidden), nn.Dropout(dropout), nn.Linear(hidden, made))
        if mutual == "compact_bilinear":
            self.register_buffer("places", torch.randint(channels, (2, channels)))
            self.register_buffer("signs", torch.randint(2, (2, channels)) * 2.0 - 1)

    def forward(self, first: Float[Tensor, "P D"], second: Float[Tensor, "P D"]) -> Interaction:
        """The interaction of pairs."""
        if self.mutual == "individual":
            mutual = None
            one, two = (torch.sigmoid(self._through(x)) for x in (first, second))
        else:
            mutual = self.mutual_vector(first, second)
            if self.gate == "single":
                one = two = torch.sigmoid(mutual)
            else:
                one, two = torch.sigmoid(mutual * first), torch.sigmoid(mutual * second)
        own = first + first * one, second + second * two
        crossed = None if self.gate == "single" else (first + first * two, second + second * one)
        return Interaction(mutual, (one, two), own, crossed)

    def mutual_vector(self, first: Float[Tensor, "P D"], second: Float[Tensor, "P D"]) -> Float[Tensor, "P D"]:
        """x_m of pairs, eq. 1.

        Raises:
            FieldmarkError: If there is none, for ``mutual="individual"``.
        """
        if self.mutual == "sum":
            return first + second
        if self.mutual == "product":
            return first * second
        if self.mutual == "subtract_square":
            return (first - second).square()
        if self.mutual == "compact_bilinear":
            return compact_bilinear(first, second, self.places, self.signs, self.channels)
        if self.mutual == "individual":
            raise FieldmarkError("mutual 'individual' has no mutual vector; it gates every image by itself")
        made = self._through(torch.cat([first, second], -1))
        if self.mutual == "mlp":
            return made
        weights = made.softmax(-1)
        return weights[..., :1] * first + weights[..., 1:] * second

    def _through(self, values: Tensor) -> Tensor:
        assert self.layers is not None
        return self.layers(values)


def check_interaction(mutual: str, gate: str, hidden: int, dropout: float, owner: str = "pairwise interaction") -> None:
    """Refuse options of the interaction that are unknown or do not go together.

    Args:
        mutual: As in :class:`PairwiseInteraction`.
        gate: Likewise.
        hidden: Likewise.
        dropout: Likewise.
        owner: What has the options, for the message.

    Raises:
        FieldmarkError: Names the option.

    Example:
        >>> check_interaction("individual", "single", 512, 0.0)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: gate 'single' of pairwise interaction is the mutual vector's, and mutual ...
    """
    if mutual not in get_args(Mutual):
        raise unknown_name(f"mutual of {owner}", mutual, get_args(Mutual))
    if gate not in get_args(Gate):
        raise unknown_name(f"gate of {owner}", gate, get_args(Gate))
    if mutual == "individual" and gate == "single":
        raise FieldmarkError(
            f"gate 'single' of {owner} is the mutual vector's, and mutual 'individual' has none; use gate pair"
        )
    if hidden < 1:
        raise FieldmarkError(f"hidden of {owner} is {hidden}; expected at least 1")
    if not 0 <= dropout < 1:
        raise FieldmarkError(f"dropout of {owner} is {dropout}; expected 0 to below 1")
