"""Heads that were trained with a model, made again for it."""

import pytest
import torch

from fieldmark import heads
from fieldmark.backbones import Encoder, TrainedHead, create
from fieldmark.errors import FieldmarkError
from fieldmark.heads.trained import keep

NAME = "spatial_alignment"
ALL_ON = {"foreground": "full", "reduce": True, "manipulation": True}


@pytest.fixture
def encoder():
    return Encoder(create("conv4", channels=8, last_pool=False), (0.5,) * 3, (0.2,) * 3)


def trained(**options):
    """A head whose weights differ from fresh ones, of which we know that they are not."""
    head = heads.create(NAME, **options)
    head.setup(8)
    generator = torch.Generator().manual_seed(5)
    for value in head.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return head


@pytest.fixture
def episode():
    generator = torch.Generator().manual_seed(1)
    support, query = torch.rand(2, 1, 6, 9, 8, generator=generator)
    return support, torch.tensor([[0, 1, 2, 0, 1, 2]]), query, 3


def test_what_was_trained_scores_as_it_did(encoder, episode):
    head = trained(**ALL_ON, temperature=0.3)
    encoder.head = keep(head)
    again = heads.create_for(encoder, NAME)
    assert again.temperature == 0.3
    assert not again.training
    expected = head.eval()(*episode)
    assert torch.equal(again(*episode), expected)
    assert not torch.allclose(heads.create_for(encoder, NAME, manipulation=False)(*episode), expected)


def test_what_is_kept_is_a_copy(encoder, episode):
    head = trained(**ALL_ON)
    encoder.head = keep(head)
    before = heads.create_for(encoder, NAME)(*episode)
    for value in head.parameters():
        value.data.zero_()
    assert torch.equal(heads.create_for(encoder, NAME)(*episode), before)


def test_making_it_draws_nothing_from_the_global_generator(encoder):
    encoder.head = keep(trained(**ALL_ON))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    heads.create_for(encoder, NAME)
    assert torch.equal(torch.rand(2), expected)


def test_parts_that_are_switched_off_are_left_out(encoder):
    encoder.head = keep(trained(**ALL_ON))
    parts = {key.split(".")[0] for key in heads.create_for(encoder, NAME, foreground="mask").state_dict()}
    assert parts == {key.split(".")[0] for key in trained(reduce=True, manipulation=True).state_dict()}


def test_parts_that_were_not_trained_are_refused_in_one_line(encoder):
    encoder.head = keep(trained(foreground="full"))
    with pytest.raises(FieldmarkError, match=r"with manipulation True has a part .* was not trained") as caught:
        heads.create_for(encoder, NAME, manipulation=True)
    assert "\n" not in str(caught.value)


def test_learned_parts_of_a_model_without_a_trained_head_are_refused(encoder):
    assert heads.create_for(encoder, NAME).made_as[0] == NAME  # nothing learned in it
    for head in (None, TrainedHead("emd", {"temperature": 1.0})):
        encoder.head = head
        with pytest.raises(FieldmarkError, match="has parts that are trained with a model"):
            heads.create_for(encoder, NAME, manipulation=True)


def test_options_of_other_heads_stay_what_they_are(encoder):
    encoder.head = keep(trained(**ALL_ON))
    assert heads.create_for(encoder, "emd", shots="merge").shots == "merge"
    with pytest.raises(FieldmarkError, match="did you mean 'temperature'"):
        heads.create_for(encoder, NAME, temprature=1.0)


def test_a_head_of_another_width_is_refused(encoder):
    kept = keep(trained(**ALL_ON))
    other = Encoder(create("conv4", channels=4), (0.5,) * 3, (0.2,) * 3, head=kept)
    with pytest.raises(FieldmarkError, match=r"of the trained head .* for a model of 4 channels"):
        heads.create_for(other, NAME)


def test_a_head_with_everything_off_keeps_its_options_and_others_nothing():
    kept = keep(heads.create(NAME, correspondence=False, distance="euclidean"))
    assert (kept.options["correspondence"], kept.options["distance"], kept.weights) == (False, "euclidean", {})
    assert keep(heads.create("prototype", metric="cosine")) is None
    assert keep(type(heads.create(NAME))()) is None  # not made by name: nothing to call it by


@pytest.mark.parametrize("name", heads.names())
def test_every_head_knows_how_it_was_made(name):
    made = heads.create(name)
    assert made.made_as[0] == name
    again = heads.create(name, **made.made_as[1])
    assert again.made_as == made.made_as
