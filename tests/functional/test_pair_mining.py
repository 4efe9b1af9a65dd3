"""Pair mining against the official pairs and against a plain loop over images."""

from __future__ import annotations

import itertools

import pytest
import torch

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.functional.pair_mining import mine_pairs, mine_triplets

KINDS = ("similar", "dissimilar", "none")
SETTINGS = [one for one in itertools.product(KINDS, KINDS) if one != ("none", "none")]


def features(images=14, length=6, seed=0):
    return torch.randn(images, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# A class of one, of two, and larger ones: not every image has the partners it is asked for.
LABELS = torch.tensor([3, 0, 0, 1, 1, 1, 2, 2, 2, 2, 1, 2, 3, 9])


def looped(values, labels, intra, inter):
    """The same by loops: for every image, its candidates in the order of their distance."""
    wanted = [kind for kind in (intra, inter) if kind != "none"]
    lists = []
    for same, kind in ((True, intra), (False, inter)):
        if kind == "none":
            continue
        choices = []
        for i in range(len(labels)):
            fitting = [j for j in range(len(labels)) if j != i and (labels[j] == labels[i]).item() is same]
            far = [float((values[i] - values[j]).square().sum()) for j in fitting]
            order = sorted(range(len(fitting)), key=lambda k: far[k] if kind == "similar" else -far[k])
            choices.append([fitting[k] for k in order[: 3 - len(wanted)]])
        lists += [[(i, one[n]) for i, one in enumerate(choices) if n < len(one)] for n in range(3 - len(wanted))]
    return [pair for part in lists for pair in part]


def found(pairs):
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.mark.parametrize(("intra", "inter"), SETTINGS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_construction_is_that_of_the_loop(intra, inter, seed):
    values = features(seed=seed)
    assert found(mine_pairs(values, LABELS, intra, inter)) == looped(values, LABELS, intra, inter)


@pytest.mark.parametrize("name", ["small", "singleton", "full2048"])
def test_official_pairs(golden, name):
    data = {key: torch.from_numpy(value) for key, value in golden(f"apinet_{name}").items() if value.ndim}
    pairs = mine_pairs(data["pooled"], data["labels"], variant="code")
    official = torch.cat([data["intra_pairs"], data["inter_pairs"]])
    assert torch.equal(torch.stack(pairs, 1), official)
    own = data["intra_pairs"]
    alone = data["labels"][own[:, 0]] != data["labels"][own[:, 1]]
    alone |= own[:, 0] == own[:, 1]
    kept = torch.cat([own[~alone], data["inter_pairs"]])
    assert torch.equal(torch.stack(mine_pairs(data["pooled"], data["labels"]), 1), kept)


def test_there_are_as_many_pairs_as_in_the_paper():
    labels = torch.arange(30).repeat_interleave(4)
    values = features(120)
    for intra, inter in [*SETTINGS, ("none", "none")]:
        assert len(mine_pairs(values, labels, intra, inter).first) == 240


def test_random_pairs_are_of_all_kinds_never_of_one_image_and_by_the_generator():
    values = features(5)
    drawn = [
        mine_pairs(values, torch.tensor([0, 0, 1, 1, 2]), "none", "none", generator=torch.Generator().manual_seed(seed))
        for seed in range(60)
    ]
    seen = {pair for one in drawn for pair in found(one)}
    assert seen == {(i, j) for i in range(5) for j in range(5) if i != j}
    again = mine_pairs(values, LABELS[:5], "none", "none", generator=torch.Generator().manual_seed(3))
    assert found(again) == found(drawn[3])


def test_of_equally_near_images_the_first_is_taken():
    values = torch.tensor([[0.0], [1.0], [-1.0], [1.0]])
    assert mine_pairs(values, torch.zeros(4, dtype=torch.long), inter="none").second[0] == 1


def test_a_large_common_part_does_not_blur_the_distances():
    values = features(20).float()
    labels = torch.arange(20) % 4
    assert found(mine_pairs(values + 300, labels)) == found(mine_pairs(values, labels))


@pytest.mark.parametrize(
    ("labels", "expected"), [([], 0), ([4], 0), ([4, 4], 2), ([4, 5], 2), ([4, 4, 4], 3), ([4, 5, 6], 3)]
)
def test_batches_without_partners(labels, expected):
    labels = torch.tensor(labels, dtype=torch.long)
    pairs = mine_pairs(features(len(labels)), labels)
    assert len(pairs.first) == expected
    assert not (pairs.first == pairs.second).any()
    assert len(mine_pairs(features(len(labels)), labels, "none", "none").first) == (
        2 * len(labels) if len(labels) > 1 else 0
    )


def test_low_precision_is_compared_in_float32_under_autocast():
    values = features(24).float() + 10
    labels = torch.arange(24) % 6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = found(mine_pairs(values, labels))
    assert inside == found(mine_pairs(values, labels))
    low = values.bfloat16()
    assert found(mine_pairs(low, labels)) == found(mine_pairs(low.float(), labels))


def test_no_gradient_is_followed():
    values = features(6).requires_grad_(True)
    assert not any(part.requires_grad for part in mine_pairs(values, torch.arange(6) % 2))


@pytest.mark.parametrize("intra", ["similar", "dissimilar"])
@pytest.mark.parametrize("inter", ["similar", "dissimilar"])
def test_triplets_join_an_image_s_two_partners(intra, inter):
    values = features()
    chosen = mine_triplets(values, LABELS, intra, inter)
    positive = dict(looped(values, LABELS, intra, "none")[: sum(1 for x in LABELS if (x == LABELS).sum() > 1)])
    negative = dict(looped(values, LABELS, "none", inter)[: len(LABELS)])
    assert chosen.anchor.tolist() == sorted(positive)
    assert chosen.positive.tolist() == [positive[i] for i in sorted(positive)]
    assert chosen.negative.tolist() == [negative[i] for i in sorted(positive)]


def plain(function):
    """Past the check of shapes, which is for tests alone."""
    return getattr(function, "__wrapped__", function)


def test_bad_input_is_refused():
    with pytest.raises(FieldmarkError, match=r"unknown intra of pair mining 'similiar'; did you mean 'similar'"):
        plain(mine_pairs)(features(4), torch.arange(4), "similiar")
    with pytest.raises(FieldmarkError, match="unknown variant of mine_pairs"):
        plain(mine_pairs)(features(4), torch.arange(4), variant="codes")
    with pytest.raises(FieldmarkError, match="one label for each of the B images"):
        plain(mine_pairs)(features(4), torch.arange(3))
    with pytest.raises(FieldmarkError, match="inter of mine_triplets is 'none'"):
        mine_triplets(features(4), torch.arange(4), inter="none")


def test_names_in_the_room():
    assert functional.mine_pairs is mine_pairs
    assert functional.mine_triplets is mine_triplets
