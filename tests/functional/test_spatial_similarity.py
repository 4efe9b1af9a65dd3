"""Spatial similarity: recorded official numbers, a plain loop over pairs and locations, derivatives, chunks."""

import math

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional import contrastive_loss, spatial_similarity

FILES = ("scl_spatial_a", "scl_spatial_lowT")
AGGREGATIONS = {"mean": "mean", "sum": "sum", "max": "max", "logsum": "logsumexp"}
CHUNKS = (None, 1, 5)


def sets(*shape, seed=0, count=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(count)]


def projected(maps, weights):
    """Queries, keys and values by the recorded heads."""
    locations = maps.flatten(2).mT
    names = ("query", "key", "value")
    return [(locations @ weights[f"{name}.0.weight"].mT).relu() @ weights[f"{name}.2.weight"].mT for name in names]


def recorded(golden, name, dtype=torch.float32):
    arrays = {key: torch.from_numpy(array) for key, array in golden(name).items()}
    weights = {key[2:]: array.to(dtype).requires_grad_() for key, array in arrays.items() if key.startswith("w/")}
    return arrays, weights


def labels_of(arrays, mode):
    if mode == "full":
        return arrays["labels_full"]
    return arrays["labels"].repeat(2) if mode == "sup" else None


@pytest.mark.parametrize("official", AGGREGATIONS)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_similarities_are_the_official_ones(golden, name, official, chunk):
    arrays, weights = recorded(golden, name)
    options = {"aggregation": AGGREGATIONS[official], "chunk": chunk}
    found = spatial_similarity(*projected(arrays["features"], weights), **options)
    torch.testing.assert_close(found, arrays[f"{official}_similarity"], rtol=1e-5, atol=1e-5)
    first, second = (tuple(projected(arrays[key], weights)) for key in "ab")
    # The official code has the second set in the rows.
    found = spatial_similarity(*first, other=second, **options)
    torch.testing.assert_close(found.mT, arrays[f"{official}_similarity_ab"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["sup", "selfsup", "full"])
@pytest.mark.parametrize("official", AGGREGATIONS)
@pytest.mark.parametrize("name", FILES)
def test_losses_and_gradients_are_the_official_ones(golden, name, official, mode):
    arrays, weights = recorded(golden, name)
    maps = arrays["features"].requires_grad_()
    similarity = spatial_similarity(*projected(maps, weights), aggregation=AGGREGATIONS[official], chunk=5)
    loss = contrastive_loss(similarity, labels_of(arrays, mode), 1 / float(arrays["temperature"]))
    torch.testing.assert_close(loss, arrays[f"{official}_{mode}_loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    wanted = {"grad_features": maps.grad} | {f"gradw/{key}": weight.grad for key, weight in weights.items()}
    present = {key: grad for key, grad in wanted.items() if f"{official}_{mode}_{key}" in arrays}
    assert len(present) == {"mean": {"sup": 7}.get(mode, 1), "logsum": {"sup": 7, "selfsup": 1}.get(mode, 0)}.get(
        official, int(mode != "full")
    )
    for key, grad in present.items():
        torch.testing.assert_close(grad, arrays[f"{official}_{mode}_{key}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["sup", "selfsup", "full"])
@pytest.mark.parametrize("official", AGGREGATIONS)
@pytest.mark.parametrize("name", FILES)
def test_losses_in_double_precision(golden, name, official, mode):
    arrays, weights = recorded(golden, name, torch.float64)
    parts = projected(arrays["features"].double(), weights)
    similarity = spatial_similarity(*parts, aggregation=AGGREGATIONS[official])
    loss = contrastive_loss(similarity, labels_of(arrays, mode), 1 / float(arrays["temperature"]))
    assert float(loss.detach()) == pytest.approx(float(arrays[f"f64_{official}_{mode}_loss"]), rel=0, abs=1e-9)


@pytest.mark.parametrize("official", AGGREGATIONS)
@pytest.mark.parametrize("name", FILES)
def test_losses_of_two_sets(golden, name, official):
    arrays, weights = recorded(golden, name)
    first, second = (tuple(projected(half, weights)) for half in arrays["features"].chunk(2))
    similarity = spatial_similarity(*first, other=second, aggregation=AGGREGATIONS[official])
    labels = arrays["labels"]
    loss = contrastive_loss(similarity.mT, labels, 1 / float(arrays["temperature"]), other_labels=labels)
    torch.testing.assert_close(loss, arrays[f"{official}_ab_loss"], rtol=1e-5, atol=1e-5)


def by_loop(first, second, aggregation, variant):
    """METHODS, from the equations: no batched product, no exchange of sums."""
    rows = []
    for i in zip(*first, strict=True):
        row = []
        for j in zip(*second, strict=True):
            parts = []
            for r in range(len(i[0])):
                part = torch.zeros((), dtype=torch.float64)
                for (query, _, own), (_, key, value) in ((i, j), (j, i)):
                    values = value / value.norm(dim=-1, keepdim=True) if variant == "paper" else value
                    scores = torch.stack([query[r] @ other for other in key]) / math.sqrt(len(query[r]))
                    shares = scores.exp() / scores.exp().sum()
                    aligned = sum(share * one for share, one in zip(shares, values, strict=True))
                    mine = own[r] / own[r].norm()
                    part = part + mine @ (aligned if variant == "paper" else aligned / aligned.norm())
                parts.append(part)
            parts = torch.stack(parts)
            total = parts.sum()
            row.append(
                {
                    "mean": total / len(parts),
                    "sum": total,
                    "max": parts.sort().values[-1],
                    "logsumexp": (4 * parts).exp().sum().log() / 4,
                }[aggregation]
            )
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS.values())
@pytest.mark.parametrize("two", [False, True])
def test_equals_a_plain_loop_with_gradients(two, aggregation, variant):
    first = sets(5, 6, 4)
    second = sets(3, 6, 4, seed=1) if two else first
    options = {"aggregation": aggregation, "scale": 4.0, "variant": variant, "chunk": 2}
    expected = by_loop(first, second, aggregation, variant)
    found = spatial_similarity(*first, other=tuple(second) if two else None, **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = sets(*expected.shape, seed=2, count=1)[0].detach()
    leaves = [*first, *second] if two else first
    ours, theirs = (torch.autograd.grad((one * weights).sum(), leaves) for one in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("aggregation", ["mean", "logsumexp"])
def test_derivatives_by_finite_differences(aggregation, variant):
    first, second = sets(3, 4, 3), sets(2, 4, 3, seed=1)

    def one(*leaves):
        return spatial_similarity(*leaves, aggregation=aggregation, variant=variant, chunk=2)

    def two(*leaves):
        return spatial_similarity(*leaves[:3], other=leaves[3:], aggregation=aggregation, variant=variant, chunk=2)

    assert torch.autograd.gradcheck(one, first)
    assert torch.autograd.gradcheck(two, (*first, *second))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_change_neither_values_nor_gradients(chunk, dtype):
    leaves = sets(7, 5, 8, dtype=dtype)
    weights = sets(7, 7, seed=3, count=1, dtype=dtype)[0].detach()

    def step(size):
        found = spatial_similarity(*leaves, chunk=size)
        return found, *torch.autograd.grad((found * weights).sum(), leaves)

    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for ours, whole in zip(step(chunk), step(7), strict=True):
        torch.testing.assert_close(ours, whole, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("locations", [1, 2, 6, 35, 450])
def test_any_number_of_locations(locations):
    """Also more than a default chunk has room for."""
    leaves = sets(3, locations, 4)
    found = spatial_similarity(*leaves)
    torch.testing.assert_close(found, found.mT, rtol=0, atol=1e-12)
    assert float(found.detach().abs().max()) <= 2 + 1e-12
    order = torch.randperm(locations, generator=torch.Generator().manual_seed(0))
    # The locations of all images in another order: the same parts, so the same mean.
    moved = spatial_similarity(*(one[:, order] for one in leaves))
    torch.testing.assert_close(moved, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_the_size_of_the_values_does_not_count(size):
    queries, keys, values = sets(4, 5, 8, dtype=torch.float32)
    # The size of all values, though not of some.
    found = spatial_similarity(queries, keys, values * size)
    torch.testing.assert_close(found, spatial_similarity(queries, keys, values), rtol=1e-5, atol=1e-5)


def test_sharp_attention_and_values_of_zero_are_finite():
    queries, keys, values = sets(4, 5, 8, dtype=torch.float32)
    with torch.no_grad():
        queries *= 1e3
        values[0] = 0
        values[1, 2] = 0
        # Opposite values that attention mixes in equal parts cancel.
        keys[2] = 0
        values[2, :4] = torch.tensor([1.0, -1.0, 1.0, -1.0]).unsqueeze(1) * values[2, 0].clone()
        values[2, 4] = 0
    found = spatial_similarity(queries, keys, values)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert float(found.detach().abs().max()) <= 2 + 1e-5
    assert float(found[0].detach().abs().max()) == 0
    for leaf in (queries, keys, values):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_mixed_precision_is_computed_in_float32():
    leaves = [one.detach() for one in sets(3, 4, 8, dtype=torch.float32)]
    halves = [one.bfloat16().requires_grad_() for one in leaves]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = spatial_similarity(*halves)
        found.sum().backward()
    expected = spatial_similarity(*(one.bfloat16().float() for one in leaves))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert {one.grad.dtype for one in halves} == {torch.bfloat16}


def test_memory_is_bounded_by_the_chunk():
    """Nothing is kept for the backward pass but what went in, and no tensor has the size of all pairs of locations."""
    leaves, kept = sets(20, 9, 4), []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
        found = spatial_similarity(*leaves, chunk=2)
    assert max(kept) <= max(20 * 20 * 9, 20 * 9 * 9)
    assert found.shape == (20, 20)


def test_there_is_no_second_derivative():
    leaves = sets(2, 3, 4)
    (slope,) = torch.autograd.grad(spatial_similarity(*leaves).square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"aggregation": "meen"}, "did you mean 'mean'"),
        ({"variant": "codes"}, "did you mean 'code'"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"other": tuple(torch.rand(3, 2, 5, 4))}, r"\(N, d\) is \(4, 5\) in the first set and \(5, 4\)"),
    ],
)
def test_wrong_options_are_one_line(change, text):
    # Past the check of shapes, which is for tests alone.
    plain = getattr(spatial_similarity, "__wrapped__", spatial_similarity)
    with pytest.raises(FieldmarkError, match=text) as caught:
        plain(*torch.rand(3, 2, 4, 5), **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (((2, 4, 5), (2, 4, 5), (2, 3, 5)), r"expected three of one \(B, N, d\)"),
        (((4, 5),) * 3, r"expected three of one \(B, N, d\)"),
        (((2, 0, 5),) * 3, "without locations"),
    ],
)
def test_wrong_shapes_are_one_line(shapes, text):
    plain = getattr(spatial_similarity, "__wrapped__", spatial_similarity)
    with pytest.raises(FieldmarkError, match=text):
        plain(*(torch.rand(*shape) for shape in shapes))
