"""Compact bilinear pooling against all products, hashed one by one."""

from __future__ import annotations

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.compact_bilinear import compact_bilinear, count_sketch


def hashes(length, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(size, (2, length), generator=generator)
    return places, torch.randint(2, (2, length), generator=generator) * 2.0 - 1


def vectors(length, seed):
    return torch.randn(3, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 5, 8])
def test_it_is_the_count_sketch_of_all_products(size):
    first, second = vectors(6, 1), vectors(6, 2)
    places, signs = hashes(6, size)
    expected = torch.zeros(3, size, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            place = (int(places[0, i]) + int(places[1, j])) % size
            expected[:, place] += signs[0, i] * signs[1, j] * first[:, i] * second[:, j]
    torch.testing.assert_close(compact_bilinear(first, second, places, signs, size), expected)


def test_products_of_sketches_are_products_of_kernels_on_average():
    first, second = vectors(6, 1), vectors(6, 2)
    exact = (first[0] @ first[1]) * (second[0] @ second[1])
    found = []
    for seed in range(400):
        sketch = compact_bilinear(first, second, *hashes(6, 64, seed), 64)
        found.append(sketch[0] @ sketch[1])
    mean, error = torch.stack(found).mean(), torch.stack(found).std() / 20
    assert abs(mean - exact) < 4 * error


def test_gradients():
    places, signs = hashes(4, 3)
    given = [vectors(4, seed).requires_grad_(True) for seed in (1, 2)]
    assert torch.autograd.gradcheck(lambda a, b: compact_bilinear(a, b, places, signs, 3), given)


def test_half_precision_is_computed_in_float32():
    first, second = (vectors(7, seed).bfloat16() for seed in (1, 2))
    places, signs = hashes(7, 7)
    low = compact_bilinear(first, second, places, signs, 7)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low, compact_bilinear(first.float(), second.float(), places, signs, 7).bfloat16())


def test_vectors_have_to_fit():
    plain = getattr(compact_bilinear, "__wrapped__", compact_bilinear)  # past the check of shapes, for tests alone
    with pytest.raises(FieldmarkError, match="expected equal ones"):
        plain(torch.ones(2, 3), torch.ones(1, 3), *hashes(3, 3), 3)


def test_an_empty_batch_stays_empty():
    assert count_sketch(torch.zeros(0, 4), *(one[0] for one in hashes(4, 3)), 3).shape == (0, 3)
