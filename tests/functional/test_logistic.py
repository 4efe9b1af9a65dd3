"""The optimum of scikit-learn's multinomial objective, for every number of ways."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fieldmark.errors import FieldmarkError
from fieldmark.functional import logistic, logistic_regression, spatial_features


def make_episodes(episodes=3, way=5, shot=5, d=48, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(episodes, way, 1, d, generator=generator, dtype=dtype)
    features = centres + torch.randn(episodes, way, shot, d, generator=generator, dtype=dtype)
    labels = torch.arange(way).repeat_interleave(shot).expand(episodes, -1)
    order = torch.randperm(way * shot, generator=generator)
    return normalize(features.reshape(episodes, -1, d)[:, order].relu(), dim=-1), labels[:, order]


def objective(features, labels, weight, bias, C):
    logits = features @ weight.mT + bias[:, None]
    fit = torch.nn.functional.cross_entropy(logits.mT, labels.long(), reduction="none").sum(1)
    return fit + weight.square().sum((1, 2)) / (2 * C)


def gradient_norms(features, labels, weight, bias, C):
    """By autograd, in float64: independent of the solver's own formula."""
    weight, bias = weight.double().requires_grad_(), bias.double().requires_grad_()
    slopes = torch.autograd.grad(objective(features.double(), labels, weight, bias, C).sum(), [weight, bias])
    return torch.cat([slope.flatten(1) for slope in slopes], 1).norm(dim=1)


@pytest.mark.parametrize("way", [2, 3, 5, 20])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("shot", "d"), [(1, 48), (5, 48), (12, 7)])
def test_gradient_vanishes(way, C, shot, d):
    features, labels = make_episodes(way=way, shot=shot, d=d)
    weight, bias = logistic_regression(features, labels, way, C)
    start = gradient_norms(features, labels, torch.zeros_like(weight), torch.zeros_like(bias), C)
    assert (gradient_norms(features, labels, weight, bias, C) <= 2e-10 * start).all()
    assert torch.allclose(bias.sum(1), torch.zeros(3).double(), atol=1e-8)


@pytest.mark.parametrize("way", [3, 5, 20])
@pytest.mark.parametrize("C", [0.1, 1.0, 30.0])
def test_agrees_with_scikit_learn(way, C):
    from sklearn.linear_model import LogisticRegression

    features, labels = make_episodes(way=way)
    query = make_episodes(way=way, seed=1)[0]
    weight, bias = logistic_regression(features, labels, way, C)
    ours = torch.softmax(query @ weight.mT + bias[:, None], -1).numpy()
    for episode in range(len(features)):
        model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(features[episode], labels[episode])
        np.testing.assert_allclose(ours[episode], model.predict_proba(query[episode]), atol=1e-6)


def test_two_ways_is_the_softmax_model():
    from scipy.optimize import minimize

    features, labels = make_episodes(episodes=1, way=2, d=6)
    weight, bias = logistic_regression(features, labels, 2)

    def value_and_gradient(flat):
        point = torch.tensor(flat, requires_grad=True)
        value = objective(features, labels, point[:12].view(1, 2, 6), point[12:].view(1, 2), 1.0).sum()
        return value.item(), torch.autograd.grad(value, point)[0].numpy()

    options = {"maxiter": 10_000, "ftol": 1e-15, "gtol": 1e-10}
    best = minimize(value_and_gradient, np.zeros(14), jac=True, method="L-BFGS-B", options=options)
    np.testing.assert_allclose(weight.flatten().numpy(), best.x[:12], atol=1e-6)
    np.testing.assert_allclose((bias[0, 0] - bias[0, 1]).item(), best.x[12] - best.x[13], atol=1e-6)


@pytest.mark.parametrize("name", ["scl_metatest_1shot", "scl_metatest_5shot", "scl_metatest_5shot_noaug"])
@pytest.mark.parametrize("kind", ["spatial", "global"])
def test_official_meta_test(golden, name, kind):
    recorded = golden(name)
    pool = spatial_features if kind == "spatial" else lambda maps: normalize(maps.mean((2, 3)), dim=-1)
    maps = {
        part: torch.stack([torch.tensor(recorded[f"e{e}_{part}"]) for e in (0, 1)]) for part in ("support", "query")
    }
    labels = torch.stack([torch.tensor(recorded[f"e{e}_support_y"]) for e in (0, 1)])
    for dtype, close in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        support, query = (torch.stack([pool(m) for m in maps[part]]) for part in ("support", "query"))
        np.testing.assert_allclose(query[0, :3].numpy(), recorded[f"e0_{kind}_Xquery_first3"], atol=1e-6)
        weight, bias = logistic_regression(support.to(dtype), labels, 5)
        ours = torch.softmax(query.to(dtype) @ weight.mT + bias[:, None], -1)
        for episode in (0, 1):
            exact = recorded[f"e{episode}_{kind}_proba_tight64"]
            np.testing.assert_allclose(ours[episode].numpy(), exact, atol=close if dtype == torch.float64 else 1e-5)
            np.testing.assert_allclose(ours[episode].numpy(), recorded[f"e{episode}_{kind}_proba"], atol=1e-3)


def test_unequal_shots_and_labels_that_differ_between_episodes():
    features, _ = make_episodes(way=3, shot=4)
    labels = torch.tensor([[0] * 10 + [1, 2], [2, 1, 0] * 4, [1] * 3 + [0] * 2 + [2] * 7])
    weight, bias = logistic_regression(features, labels, 3)
    assert gradient_norms(features, labels, weight, bias, 1.0).max() < 1e-8


def test_chunks_do_not_change_the_result(monkeypatch):
    features, labels = make_episodes(episodes=7)
    whole = logistic_regression(features, labels, 5)
    monkeypatch.setattr(logistic, "CHUNK_BYTES", 1)
    single = logistic_regression(features, labels, 5)
    torch.testing.assert_close(whole.weight, single.weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(whole.bias, single.bias, atol=1e-9, rtol=0)


def test_float32_that_does_not_converge_is_solved_in_float64(monkeypatch):
    features, labels = make_episodes(dtype=torch.float32)
    features[1] *= 50
    weight, bias = logistic_regression(features, labels, 5, C=10.0)
    assert weight.dtype == bias.dtype == torch.float32
    exact = logistic_regression(features.double(), labels, 5, C=10.0)
    torch.testing.assert_close(weight.double(), exact.weight, atol=2e-3, rtol=0)
    monkeypatch.setattr(logistic, "FLOAT32_STEPS", 1)
    forced, _ = logistic_regression(features, labels, 5, C=10.0, tol=1e-8)
    torch.testing.assert_close(forced.double(), exact.weight, atol=1e-5, rtol=0)


def test_steps_run_out(monkeypatch):
    features, labels = make_episodes()
    monkeypatch.setattr(logistic, "FLOAT64_STEPS", 2)
    with pytest.warns(RuntimeWarning, match="above the gradient tolerance"):
        logistic_regression(features, labels, 5)


def test_equal_features():
    """Nothing to learn: zero weights, biases from the class counts."""
    labels = torch.tensor([[0, 0, 0, 1]])
    weight, bias = logistic_regression(torch.ones(1, 4, 3).double(), labels, 2)
    assert weight.abs().max() < 1e-9
    torch.testing.assert_close((bias[0, 0] - bias[0, 1]).exp().item(), 3.0)
    assert logistic_regression(torch.ones(0, 4, 3), labels[:0], 2).weight.shape == (0, 2, 3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_refuses_features_that_are_not_finite(value):
    features, labels = make_episodes()
    features[1, 2, 3] = value
    with pytest.raises(FieldmarkError, match="not finite"):
        logistic_regression(features, labels, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"C": 0.0}, "C is 0.0"),
        ({"tol": -1.0}, "tol is -1.0"),
        ({"way": 6}, "class 5 of episode 0 has no support"),
        ({"way": 4}, "labels run from 0 to 4; expected 0 to 3"),
    ],
)
def test_refuses_bad_options(change, message):
    features, labels = make_episodes()
    with pytest.raises(FieldmarkError, match=message):
        logistic_regression(features, labels, **{"way": 5, **change})
