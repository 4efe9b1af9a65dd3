"""The objectives of NTS-Net and SSANET: their losses by hand, and what each of them teaches."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch.nn import functional as F

from fieldmark import functional, methods
from fieldmark.errors import FieldmarkError
from fieldmark.methods import ImageBatch

LABELS = torch.tensor([0, 1, 2, 0])


def batch():
    images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    return ImageBatch(images, LABELS)


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, 6, 16, stride=16)

    def forward(self, images):
        return F.relu(self.layer(images))


def made(name, **options):
    torch.manual_seed(1)
    objective = methods.create(name, **options)
    objective.setup(6, 3)
    return objective


def log_probability(scores):
    return scores.log_softmax(-1)


@pytest.mark.parametrize("reduction", ["mean", "paper_sum"])
def test_ssanet_is_the_sum_of_its_losses(reduction):
    objective, encode = made("ssanet", reduction=reduction, mac_weight=0.3, ranking_weight=2.0), Tiny()
    got = objective(encode, batch())
    found = objective.classifier.look(encode, batch().images, LABELS, 6)
    chosen = log_probability(found.parts)[torch.arange(4), :, LABELS]  # (B, M)
    terms = {
        "ranking": functional.ranking_loss(found.found.scores, chosen),
        "parts": -(chosen[:, :4].mean() if reduction == "mean" else chosen[:, :4].sum()),
        "mac": functional.mac_loss(found.vectors, reduction),
        "scale": -log_probability(found.scale)[torch.arange(4), LABELS].mean(),
        "oriented": -log_probability(found.oriented)[torch.arange(4), LABELS].mean(),
    }
    for name, value in terms.items():
        torch.testing.assert_close(got[name], value.detach(), msg=name)
    weights = {"ranking": 2.0, "mac": 0.3}
    torch.testing.assert_close(got["loss"], sum(weights.get(name, 1) * value for name, value in terms.items()))
    assert got["accuracy"] == (found.logits.argmax(1) == LABELS).float().mean()


def test_nts_is_the_sum_of_its_losses():
    objective, encode = made("nts", ranking_weight=0.5), Tiny()
    got = objective(encode, batch())
    found = objective.classifier.look(encode, batch().images)
    chosen = log_probability(found.parts)[torch.arange(4), :, LABELS]
    wanted = F.cross_entropy(found.logits, LABELS) + F.cross_entropy(found.whole, LABELS) - chosen.mean()
    wanted = wanted + 0.5 * functional.ranking_loss(found.found.scores, chosen)
    torch.testing.assert_close(got["loss"], wanted)


@pytest.mark.parametrize("name", ["nts", "ssanet"])
def test_everything_learns(name):
    objective, encode = made(name), Tiny()
    objective(encode, batch())["loss"].backward()
    parameters = [*objective.named_parameters(), *encode.named_parameters()]
    still = [key for key, one in parameters if one.grad is None or not one.grad.abs().sum() > 0]
    # Of the navigator's levels those learn of which a proposal was taken.
    assert [key for key in still if "navigator.levels.0" in key or "navigator" not in key] == []
    assert any("navigator.scores" in key for key, _ in parameters if key not in still)


def test_without_mac_there_is_no_such_loss_and_the_parts_alone_are_left():
    objective = made("ssanet", mac_weight=0.0, dsm="none", pooling="gap")
    assert sorted(objective(Tiny(), batch())) == ["accuracy", "loss", "parts", "ranking"]


@pytest.mark.parametrize("name", ["nts", "ssanet"])
def test_it_learns_a_few_images_by_heart(name):
    objective, encode = made(name), Tiny()
    optimizer = torch.optim.Adam([*objective.parameters(), *encode.parameters()], 0.01)
    colours = torch.eye(3)[LABELS].view(4, 3, 1, 1)
    given = ImageBatch(0.5 * batch().images + 0.5 * colours, LABELS)
    before = objective(encode, given)["loss"].item()
    for _ in range(40):
        out = objective(encode, given)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
    assert out["accuracy"] == 1
    assert out["loss"] < 0.7 * before


def test_the_second_stage_takes_over_what_fits():
    from fieldmark.training.handover import go_on_with

    first, second = made("ssanet", pooling="none"), made("ssanet")
    taken = go_on_with(second, first.state_dict())
    assert {name.split(".")[1] for name in taken} == {"navigator", "fc", "dsm"}
    torch.testing.assert_close(second.classifier.dsm.weight, first.classifier.dsm.weight)


def test_wrong_options_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    for options in ({"mac_weight": -1}, {"reduction": "sum"}, {"ranking_weight": -0.1}, {"dms": "full"}):
        with pytest.raises(FieldmarkError) as caught:
            methods.create("ssanet", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(FieldmarkError, match="at least 0"):
        methods.create("nts", ranking_weight=-1)
