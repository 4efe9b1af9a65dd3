"""Matching similarity against the official code's numbers, a loop over pairs with POT, and finite differences."""

import sys

import jaxtyping
import numpy as np
import ot
import pytest
import torch
from scipy.spatial.distance import cdist

from fieldmark import functional
from fieldmark.errors import FieldmarkError

OPENCV = ["deepemd_opencv_a", "deepemd_opencv_signed", "deepemd_opencv_pyramid21"]


def sets(maps, dtype=torch.float32):
    return torch.tensor(maps, dtype=dtype).flatten(2).mT.contiguous().requires_grad_()


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(11)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_pairs(query, support, mine=None, theirs=None, centre=True, offset=1e-3, temperature=12.5):
    """The definition, pair by pair, with another solver."""
    n = query.shape[-2]
    out = np.empty((len(query), len(support)))
    for q, s in np.ndindex(*out.shape):
        u, v = query[q].numpy(), support[s].numpy()
        a = np.maximum(u @ v.mean(0), 0) + offset if mine is None else mine[q, s].numpy()
        b = np.maximum(v @ u.mean(0), 0) + offset if theirs is None else theirs[q, s].numpy()
        a, b = (one / one.sum() if one.sum() else np.full(len(one), 1 / len(one)) for one in (a, b))
        cost = cdist(u, v, "correlation" if centre else "cosine")
        flow = ot.emd(a, b / b.sum() * a.sum(), cost) * n
        out[q, s] = temperature / n * ((1 - cost) * flow).sum()
    return torch.tensor(out)


@pytest.mark.parametrize("name", OPENCV)
def test_official_logits_and_their_gradient(golden, name):
    arrays = golden(name)
    query, support = sets(arrays["query"]), sets(arrays["proto"])
    ours = functional.emd_similarity(query, support, weight_gradient=False)
    np.testing.assert_allclose(ours.detach(), arrays["logits"], atol=1e-5, rtol=0)
    (ours * torch.tensor(arrays["cotangent"])).sum().backward()
    for one, key in ((query, "grad_query"), (support, "grad_proto")):
        expected = arrays[key].reshape(*arrays[key].shape[:2], -1)
        np.testing.assert_allclose(one.grad.mT, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("name", OPENCV)
def test_official_logits_add_up_from_their_parts(golden, name):
    arrays = golden(name)
    query, support = sets(arrays["query"]), sets(arrays["proto"])
    found = functional.emd_matches(query.detach(), support.detach())
    np.testing.assert_allclose(found.contributions.sum((-2, -1)), arrays["logits"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(found.similarity, arrays["logits"], atol=1e-5, rtol=0)
    nodes = query.shape[1]
    np.testing.assert_allclose(found.flow.sum((-2, -1)), nodes, rtol=1e-5)
    np.testing.assert_allclose(found.flow.sum(-1), found.query_weights, atol=1e-4)
    np.testing.assert_allclose(found.flow.sum(-2), found.support_weights, atol=1e-4)


def test_official_gradient_through_the_quadratic_programme(golden):
    """One exact solution gives what the paper gets from an interior-point solver and its optimality conditions."""
    arrays = golden("deepemd_qpth_a")
    query, support = sets(arrays["query"], torch.float64), sets(arrays["proto"], torch.float64)
    ours = functional.emd_similarity(query, support)
    np.testing.assert_allclose(ours.detach(), arrays["L2_f64_logits"], atol=1e-6, rtol=0)
    (ours * torch.tensor(arrays["cotangent"])).sum().backward()
    np.testing.assert_allclose(query.grad.mT.flatten(1), arrays["L2_f64_grad_query"].reshape(3, -1), atol=1e-6, rtol=0)
    np.testing.assert_allclose(
        support.grad.mT.flatten(1), arrays["L2_f64_grad_proto"].reshape(3, -1), atol=1e-6, rtol=0
    )
    constant = functional.emd_similarity(query, support, weight_gradient=False)
    query.grad = None
    (constant * torch.tensor(arrays["cotangent"])).sum().backward()
    expected = arrays["opencv_train_grad_query"].reshape(3, -1)
    np.testing.assert_allclose(query.grad.mT.flatten(1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("m", [4, 7, 1])
@pytest.mark.parametrize("centre", [True, False])
def test_against_a_loop_over_pairs(draw, m, centre):
    query, support = draw(3, 4, 6), draw(5, m, 6)
    ours = functional.emd_similarity(query, support, centre=centre)
    torch.testing.assert_close(ours, by_pairs(query, support, centre=centre))
    equal = torch.ones(3, 5, 4).double(), torch.ones(3, 5, m).double()
    ours = functional.emd_similarity(query, support, centre=centre, weights="equal", temperature=2.0)
    torch.testing.assert_close(ours, by_pairs(query, support, *equal, centre=centre, temperature=2.0))


def test_paper_variant_with_sides_without_weight(draw):
    query, support = draw(6, 4, 5), draw(6, 3, 5)
    query[0], support[1] = query[0].abs(), -support[1].abs()
    raw = functional.cross_reference_weights(query, support, "paper")
    assert (raw.query[0, 1] == 0).all()
    assert (raw.support[0, 1] == 0).all()
    ours = functional.emd_similarity(query, support, variant="paper")
    torch.testing.assert_close(ours, by_pairs(query, support, centre=False, offset=0.0))
    query.requires_grad_()
    functional.emd_similarity(query, support, variant="paper").sum().backward()
    assert torch.isfinite(query.grad).all()


def test_weights_of_ones_own(draw):
    query, support = draw(3, 4, 6), draw(5, 2, 6)
    mine, theirs = draw(3, 1, 4).abs(), draw(3, 5, 2).abs()
    ours = functional.emd_similarity(query, support, mine, theirs)
    torch.testing.assert_close(ours, by_pairs(query, support, mine.expand(3, 5, 4), theirs))
    ours = functional.emd_similarity(query, support, support_weights=theirs)
    torch.testing.assert_close(ours, by_pairs(query, support, None, theirs))


def test_padding_matches_nothing(draw):
    query, support = draw(2, 3, 4, 6), draw(2, 5, 7, 6)
    real = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.6
    real[..., 0] = True
    ours = functional.emd_similarity(query, support, real=real)
    own = functional.emd_similarity(query, support, support_weights=torch.ones(7), real=real)
    for e, s in np.ndindex(2, 5):
        kept = support[e, s][real[e, s]].unsqueeze(0)
        torch.testing.assert_close(ours[e, :, s : s + 1], by_pairs(query[e], kept))
        expected = by_pairs(query[e], kept, theirs=torch.ones(3, 1, kept.shape[1]).double())
        torch.testing.assert_close(own[e, :, s : s + 1], expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_in_parts(draw, monkeypatch, weighted):
    query, support = draw(2, 3, 2, 4, 6), draw(2, 3, 5, 4, 6)
    mine = draw(2, 3, 2, 1, 4).abs() if weighted else None
    expected = torch.stack(
        [by_pairs(query[e], support[e], mine[e].expand(2, 5, 4) if weighted else None) for e in np.ndindex(2, 3)]
    ).view(2, 3, 2, 5)
    numbers = 4 * 4 * 8
    for cache, pairs in ((1, 1), (1, 3 * numbers), (1, 7 * numbers), (2**12, 2**20), (2**30, 2**30)):
        module = sys.modules["fieldmark.functional.emd_similarity"]
        monkeypatch.setattr(module, "_BYTES_IN_CACHE", cache)
        monkeypatch.setattr(module, "_BYTES_AT_ONCE", pairs)
        torch.testing.assert_close(functional.emd_similarity(query, support, mine), expected)


@pytest.mark.parametrize("weights", ["cross_reference", "equal"])
@pytest.mark.parametrize("m", [3, 5])
def test_finite_differences(draw, weights, m):
    # Positive descriptors: no weight is cut at 0.
    query, support = (draw(2, 3, 6).abs() + 0.1).requires_grad_(), (draw(2, m, 6).abs() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, s: functional.emd_similarity(q, s, weights=weights), (query, support), atol=1e-4
    )


def test_finite_differences_of_given_weights(draw):
    query, support = draw(2, 3, 6), draw(2, 4, 6)
    mine, theirs = draw(2, 2, 3).abs().requires_grad_(), draw(2, 2, 4).abs().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: functional.emd_similarity(query, support, a, b), (mine, theirs))


def test_single_precision_and_bounds(draw):
    query, support = draw(4, 9, 16), draw(3, 9, 16)
    single = functional.emd_similarity(query.float(), support.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), by_pairs(query, support), atol=1e-4, rtol=1e-4)
    same = functional.emd_similarity(query, query[:, torch.randperm(9)])
    torch.testing.assert_close(same.diagonal(), torch.full((4,), 12.5).double())


def test_mixed_precision_loses_nothing(draw):
    query, support = draw(4, 9, 16).float(), draw(3, 9, 16).float()
    expected = by_pairs(query.double(), support.double()).float()
    for weights in ("cross_reference", "equal"):
        single = functional.emd_similarity(query, support, weights=weights)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(functional.emd_similarity(query, support, weights=weights), single)
            assert functional.emd_matches(query, support).flow.dtype == torch.float32
    half = functional.emd_similarity(query.bfloat16(), support.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=0.1, rtol=0)
    # Two types on the two sides, as under autocast with one side cached, meet in the finer one.
    torch.testing.assert_close(functional.emd_similarity(query, support.bfloat16()), expected, atol=0.1, rtol=0)
    mixed = functional.emd_similarity(query.double(), support)
    torch.testing.assert_close(mixed, by_pairs(query.double(), support.double()))


def test_no_pairs(draw):
    assert functional.emd_similarity(draw(0, 2, 3), draw(2, 2, 3)).shape == (0, 2)
    assert functional.emd_similarity(draw(2, 2, 3), draw(0, 2, 3)).shape == (2, 0)


@pytest.mark.parametrize("weights", ["cross_reference", "equal"])
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_dense_connections_against_a_loop(draw, weights, variant):
    query, support = draw(3, 4, 6), draw(5, 7, 6)
    ours = functional.dense_similarity(query, support, weights=weights, variant=variant)
    for q, s in np.ndindex(3, 5):
        u, v = query[q].numpy(), support[s].numpy()
        a, b = np.ones(4), np.ones(7)
        if weights == "cross_reference":
            offset = 1e-3 if variant == "code" else 0
            a, b = np.maximum(u @ v.mean(0), 0) + offset, np.maximum(v @ u.mean(0), 0) + offset
        a, b = (one / one.sum() if one.sum() else np.full(len(one), 1 / len(one)) for one in (a, b))
        cosines = 1 - cdist(u, v, "correlation" if variant == "code" else "cosine")
        np.testing.assert_allclose(ours[q, s], 12.5 * a @ cosines @ b)


@pytest.mark.parametrize(
    ("query", "support", "options", "message"),
    [
        ((2, 3, 4), (2, 3, 5), {}, "differ in channels"),
        ((1, 2, 3, 4), (2, 2, 3, 4), {}, "leading axes"),
        ((3, 4), (3, 4), {}, "expected .*Q, N, C"),
        ((2, 0, 4), (2, 3, 4), {}, "without descriptors"),
        ((2, 3, 4), (2, 3, 4), {"variant": "cod"}, "did you mean 'code'"),
        ((2, 3, 4), (2, 3, 4), {"weights": "equl"}, "did you mean 'equal'"),
        ((2, 3, 4), (2, 3, 4), {"solver": "simplx"}, "did you mean 'simplex'"),
        ((2, 3, 4), (2, 3, 4), {"solver": None}, "unknown solver None"),
        ((2, 3, 4), (2, 3, 4), {"temperature": 0.0}, "temperature is 0.0; expected a number above 0"),
        ((2, 3, 4), (2, 3, 4), {"temperature": -1.0}, "above 0"),
        ((2, 3, 4), (2, 3, 4), {"query_weights": torch.ones(4)}, "query_weights has shape"),
        ((2, 3, 4), (2, 3, 4), {"real": torch.ones(2, 4).bool()}, "real has shape"),
        ((2, 3, 4), (2, 3, 4), {"query_weights": -torch.ones(3)}, "query_weights has a negative"),
        ((2, 3, 4), (2, 3, 4), {"support_weights": torch.full((3,), torch.nan)}, "nan"),
    ],
)
def test_refused(query, support, options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match=message):
        functional.emd_similarity(torch.rand(query), torch.rand(support), **options)


@pytest.mark.parametrize("similarity", [functional.dense_similarity, functional.emd_matches])
@pytest.mark.parametrize("temperature", [0.0, -2.0, np.inf, np.nan])
def test_a_temperature_that_orders_nothing_is_refused(similarity, temperature):
    with pytest.raises(FieldmarkError, match=r"temperature is .*; expected a number above 0"):
        similarity(torch.rand(2, 3, 4), torch.rand(2, 3, 4), temperature=temperature)
