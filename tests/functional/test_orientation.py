"""Oriented pooling: against a plain loop, and what it does and does not leave unchanged."""

from __future__ import annotations

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional import oriented_patches, oriented_pool, oriented_score, pool_patches


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SYMMETRIES = [
    *(lambda x, k=k: torch.rot90(x, k, (1, 2)) for k in range(4)),
    *(lambda x, k=k: torch.rot90(x, k, (1, 2)).transpose(1, 2) for k in range(4)),
]


def best(pooled, weights):
    return oriented_score(pooled, weights).value


def test_the_four_vectors_are_those_of_a_plain_loop():
    maps = drawn(2, 3, 7, 7)
    pooled = oriented_pool(maps)
    assert pooled.shape == (2, 4, 3 * 3 * 3 * 3)
    for image, found in zip(maps, pooled, strict=True):
        patch = [[image[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].flatten() for j in range(3)] for i in range(3)]
        p = [torch.stack([patch[i][j] for j in range(3)]).amax(0) for i in range(3)]
        q = [torch.stack([patch[i][j] for i in range(3)]).amax(0) for j in range(3)]
        for mine, wanted in zip(found, (p, q, p[::-1], q[::-1]), strict=True):
            torch.testing.assert_close(mine, torch.cat(wanted))


@pytest.mark.parametrize("change", SYMMETRIES)
def test_turning_or_transposing_the_arrangement_of_patches_leaves_the_score(change):
    patches, weights = oriented_patches(drawn(3, 4, 7, 7), 3, 2), drawn(5, 3 * 36, seed=1)
    torch.testing.assert_close(best(pool_patches(change(patches)), weights), best(pool_patches(patches), weights))


def test_turning_the_map_itself_does_change_it():
    maps, weights = drawn(3, 4, 7, 7), drawn(5, 3 * 36, seed=1)
    turned = best(oriented_pool(torch.rot90(maps, 1, (2, 3))), weights)
    assert (turned - best(oriented_pool(maps), weights)).abs().min() > 1e-3


@pytest.mark.parametrize("change", SYMMETRIES)
def test_turning_the_map_leaves_the_score_with_patches_of_one_place(change):
    maps, weights = drawn(3, 4, 7, 7), drawn(5, 7 * 4, seed=1)
    moved = change(maps.movedim(1, 3)).movedim(3, 1)
    torch.testing.assert_close(best(oriented_pool(moved, 1, 1), weights), best(oriented_pool(maps, 1, 1), weights))


def test_the_papers_example_of_two_by_two():
    a, b, c, d = 1.0, 4.0, 2.0, 3.0
    plain, turned = torch.tensor([[[[a, b], [c, d]]]]), torch.tensor([[[[c, a], [d, b]]]])
    vertical = oriented_pool(plain, 1, 1)[0, 1]
    assert vertical.tolist() == [max(a, c), max(b, d)]
    assert oriented_pool(turned, 1, 1)[0, 0].tolist() == vertical.tolist()
    four = [sorted(oriented_pool(one, 1, 1)[0].tolist()) for one in (plain, turned)]
    assert four[0] == four[1]


def test_the_score_says_which_orientation_gave_it():
    pooled, weights = oriented_pool(drawn(3, 2, 7, 7)), drawn(5, 54, seed=1)
    value, orientation = oriented_score(pooled, weights)
    every = torch.einsum("bge,le->bgl", pooled, weights)
    torch.testing.assert_close(value, every.amax(1))
    torch.testing.assert_close(every.gather(1, orientation.unsqueeze(1)).squeeze(1), value)


def test_weights_may_differ_from_part_to_part():
    pooled, weights = drawn(2, 3, 4, 6), drawn(3, 5, 6, seed=1)
    found = oriented_score(pooled, weights).value
    for k in range(3):
        torch.testing.assert_close(found[:, k], oriented_score(pooled[:, k], weights[k]).value)


def test_gradcheck():
    maps, weights = drawn(1, 2, 5, 5).requires_grad_(), drawn(3, 36, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, w: oriented_score(oriented_pool(m, 3, 2), w).value, (maps, weights))


def test_maps_that_patches_do_not_fill_are_refused():
    for shape, patch, stride in (
        ((1, 2, 7, 6), 3, 2),
        ((1, 2, 6, 6), 3, 2),
        ((1, 2, 2, 2), 3, 1),
        ((1, 2, 3, 3), 0, 1),
    ):
        with pytest.raises(FieldmarkError) as caught:
            oriented_pool(torch.rand(shape), patch, stride)
        assert "\n" not in str(caught.value)
