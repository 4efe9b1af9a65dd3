"""Semantic correspondence as a module: equation 6, permutations, both sides in one batch."""

import pytest
import torch

from fieldmark.alignment import SemanticCorrespondence
from fieldmark.errors import FieldmarkError


@pytest.mark.parametrize("reduce", [False, True])
def test_equals_equation_6(reduce):
    torch.manual_seed(0)
    module = SemanticCorrespondence(4, reduce=reduce, temperature=0.3).double().eval()
    query, support = torch.randn(2, 4, 2, 3, dtype=torch.float64), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    weights, aligned = module.correlation(query, support), module(query, support)
    assert aligned.shape == query.shape
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6).double())
    for image in range(2):
        for place in range(6):
            mixed = sum(weights[image, place, j] * support[image].flatten(1)[:, j] for j in range(9))
            torch.testing.assert_close(aligned[image].flatten(1)[:, place], mixed)


@pytest.mark.parametrize("reduce", [False, True])
def test_a_permuted_support_map_is_put_in_order(reduce):
    torch.manual_seed(0)
    module = SemanticCorrespondence(32, reduce=reduce, temperature=1e-4).double().eval()
    query = torch.randn(1, 32, 4, 4, dtype=torch.float64)
    support = query.flatten(2)[..., torch.randperm(16)].view_as(query)
    assert not torch.allclose(support, query)
    torch.testing.assert_close(module(query, support), query)


def test_both_sides_go_through_g_in_one_batch():
    torch.manual_seed(0)
    module = SemanticCorrespondence(4).double()
    query, support = torch.randn(2, 5, 4).double(), 3 + torch.randn(3, 5, 4).double()
    module.reduced(query, support)
    hidden = module.reduction[0](torch.cat([query.flatten(0, 1), support.flatten(0, 1)]))
    torch.testing.assert_close(module.reduction[1].running_mean, 0.1 * hidden.mean(0))
    torch.testing.assert_close(module.reduction[1].running_var, 0.9 + 0.1 * hidden.var(0))
    assert module.reduction[1].num_batches_tracked == 1


def test_refused():
    with pytest.raises(FieldmarkError, match="temperature"):
        SemanticCorrespondence(4, temperature=0)
    with pytest.raises(FieldmarkError, match="at least 1"):
        SemanticCorrespondence(0)
    with pytest.raises(FieldmarkError, match="as many of each"):
        SemanticCorrespondence(4)(torch.ones(2, 4, 2, 2), torch.ones(1, 4, 2, 2))
