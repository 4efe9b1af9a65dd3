"""Spatial alignment: the modules on all pairs at once, plain loops, permutations, learned parts, errors."""

import copy
import itertools

import jaxtyping
import pytest
import torch

from fieldmark import heads
from fieldmark.alignment import pairs
from fieldmark.errors import FieldmarkError
from fieldmark.functional import one_hot

EPISODES, QUERIES, WAY, PLACES = 2, 5, 3, 9
SHOTS = {"equal": [0, 1, 0, 1, 2, 2], "unequal": [0, 1, 2, 2, 2, 1]}
LEARNED = {"foreground": "full", "reduce": True, "manipulation": True}


def create(channels, train=True, **options):
    """A head in double precision whose parts have learned something."""
    torch.manual_seed(0)
    head = heads.create("spatial_alignment", **options)
    head.setup(channels)
    if head.manipulate is not None:
        torch.nn.init.normal_(head.manipulate.last.weight, std=0.3)
        head.manipulate.first_norm.running_mean.normal_()
        head.manipulate.second_norm.running_var.uniform_(0.5, 2)
    return head.double().train(train)


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


def materialised(head, support, labels, query, way):
    """The modules, called once with the maps of all pairs."""
    query, support = head.enhanced(query, support)
    (episodes, queries, places, channels), images, theirs = query.shape, *support.shape[1:3]
    shape, side = (episodes, queries, images, places, channels), round(places**0.5)
    aligned = support.unsqueeze(1).expand(episodes, queries, images, theirs, channels)
    if head.correspondence:
        one, other = (query, support) if head.correspond is None else head.correspond.reduced(query, support)
        cosines = torch.cosine_similarity(one[:, :, None, :, None], other[:, None, :, None], dim=-1)
        aligned = torch.softmax(cosines / head.temperature, -1) @ aligned
    if head.manipulate is not None:
        maps = aligned, query.unsqueeze(2).expand(shape)
        one, other = (sets.reshape(-1, places, channels).mT.unflatten(-1, (side, side)) for sets in maps)
        aligned = head.manipulate(one, other).flatten(2).mT.reshape(shape)
    members = one_hot(labels, way, query.dtype)
    classes = torch.einsum("eqsnc,esw->eqwnc", aligned, members / members.sum(1, keepdim=True))
    difference = classes - query.unsqueeze(2)
    if head.distance == "pooled":
        return -head.scale * difference.mean(3).square().sum(-1)
    if head.distance == "euclidean":
        return -head.scale * difference.norm(dim=-1).mean(-1)
    return -head.scale * difference.square().sum((-2, -1)) / (1 if head.distance == "sum" else places)


def results(score, head, support, labels, query, wanted):
    """Scores, all gradients, and the batch norms afterwards."""
    head, leaves = copy.deepcopy(head), [support.clone().requires_grad_(), query.clone().requires_grad_()]
    out = score(head)(leaves[0], labels, leaves[1], WAY)
    (out * wanted).sum().backward()
    slopes = [one.grad if one.grad is not None else torch.zeros(()) for one in (*leaves, *head.parameters())]
    return [out.detach(), *slopes, *(one.double() for one in head.buffers())]


@pytest.fixture
def chunked(monkeypatch):
    """A function: from now on so many pairs at once, and what is kept of them: all, hidden values or nothing."""
    plain = pairs._Pairs.__init__

    def change(chunk, kept):
        def init(self, *given):
            plain(self, *given)
            self.chunk, self.keep = chunk, kept != "nothing"
            self.again = self.needs_gradient and kept != "all"

        monkeypatch.setattr(pairs._Pairs, "__init__", init)

    return change


# As it comes; then pairs of a chunk, and what is kept.
@pytest.mark.parametrize(
    "way", [None, (2, "nothing"), (5, "values"), (7, "all"), (12, "nothing"), (45, "values"), (60, "all")]
)
@pytest.mark.parametrize("shots", SHOTS)
def test_all_parts_and_chunks_equal_all_pairs_at_once(draw, chunked, shots, way):
    if way is not None:
        chunked(*way)
    labels = torch.tensor([SHOTS[shots], SHOTS[shots][::-1]])
    parts = (
        {},
        {"correspondence": False},
        {"correspondence": False, "manipulation": True},
        {"manipulation": True},
        LEARNED,
    )
    for channels, train, options in itertools.product((4, 24), (True, False), parts):
        head = create(channels, train, **options, temperature=0.3, max_offset=0.7)
        given = draw(EPISODES, 6, PLACES, channels), labels, draw(EPISODES, QUERIES, PLACES, channels)
        wanted = draw(EPISODES, QUERIES, WAY)
        expected = results(lambda head: lambda *args: materialised(head, *args), head, *given, wanted)
        found = results(lambda head: head, head, *given, wanted)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_the_chunks_are_really_chunks(draw, chunked, monkeypatch):
    sizes, plain = [], pairs._Pairs._carrier

    def carrier(self, tile):
        sizes.append(tile.query.shape[0] * tile.query.shape[1] * tile.support.shape[1])
        return plain(self, tile)

    monkeypatch.setattr(pairs._Pairs, "_carrier", carrier)
    chunked(8, "nothing")
    labels = torch.tensor(SHOTS["equal"]).expand(EPISODES, -1)
    create(4, False)(draw(EPISODES, 6, PLACES, 4), labels, draw(EPISODES, QUERIES, PLACES, 4), WAY)
    assert max(sizes) <= 8
    assert sum(sizes) == EPISODES * QUERIES * 6


def test_memory_bounds_the_chunk_and_not_the_result(draw):
    labels = torch.tensor(SHOTS["equal"]).expand(EPISODES, -1)
    given = draw(EPISODES, 6, PLACES, 32), labels, draw(EPISODES, 8, PLACES, 32), WAY
    small, large = (create(32, memory=memory, **LEARNED) for memory in (1, 4096))
    torch.testing.assert_close(small(*given), large(*given))
    torch.testing.assert_close(list(small.buffers()), list(large.buffers()))


@pytest.mark.parametrize(("memory", "again"), [(1, True), (4096, False)])
def test_pairs_are_computed_again_only_where_they_are_too_much_to_keep(draw, monkeypatch, memory, again):
    calls, plain = [], pairs.checkpoint
    monkeypatch.setattr(pairs, "checkpoint", lambda *given, **options: calls.append(1) or plain(*given, **options))
    labels = torch.tensor(SHOTS["equal"]).expand(EPISODES, -1)
    given = draw(EPISODES, 6, PLACES, 32).requires_grad_(), labels, draw(EPISODES, 8, PLACES, 32), WAY
    head = create(32, memory=memory, **LEARNED)
    head(*given).sum().backward()
    assert bool(calls) == again
    calls.clear()
    with torch.no_grad():
        head(*given)
    assert not calls


@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean", "sum", "pooled"])
@pytest.mark.parametrize("shots", SHOTS)
def test_without_parts_it_is_the_matching_of_paired_features(draw, distance, shots):
    labels = torch.tensor([SHOTS[shots]] * EPISODES)
    support, query = draw(EPISODES, 6, PLACES, 4), draw(EPISODES, QUERIES, PLACES, 4)
    head = heads.create("spatial_alignment", correspondence=False, distance=distance, scale=0.5)
    found = head(support, labels, query, WAY)
    for episode, number, label in itertools.product(range(EPISODES), range(QUERIES), range(WAY)):
        shots_of = [support[episode, i] for i in range(6) if labels[episode, i] == label]
        mean, lengths = sum(shots_of) / len(shots_of), []
        for place in range(PLACES):
            lengths.append(float((mean[place] - query[episode, number, place]).norm()))
        expected = {
            "squared_euclidean": sum(one**2 for one in lengths) / PLACES,
            "euclidean": sum(lengths) / PLACES,
            "sum": sum(one**2 for one in lengths),
            "pooled": float((mean.mean(0) - query[episode, number].mean(0)).norm() ** 2),
        }[distance]
        assert float(found[episode, number, label]) == pytest.approx(-0.5 * expected)


def test_a_permuted_support_map_has_no_distance(draw):
    query = draw(1, 3, PLACES, 32)
    order = torch.randperm(PLACES, generator=torch.Generator().manual_seed(1))
    given = query[:, :, order], torch.tensor([[0, 1, 2]]), query, 3
    aligned = heads.create("spatial_alignment", temperature=1e-3)(*given)[0]
    paired = heads.create("spatial_alignment", correspondence=False)(*given)[0]
    assert aligned.diagonal().abs().max() < 1e-9
    assert paired.diagonal().max() < -10
    assert (aligned.argmax(-1) == torch.arange(3)).all()


def test_the_mask_alone_needs_no_training(draw):
    labels = torch.tensor([SHOTS["equal"]] * EPISODES)
    head = heads.create("spatial_alignment", foreground="mask")
    assert not head.learned
    given = draw(EPISODES, 6, 7, 4), labels, draw(EPISODES, QUERIES, 7, 4), WAY
    torch.testing.assert_close(head(*given), materialised(head, *given))


@pytest.mark.parametrize("options", [{}, {"correspondence": False}, {"manipulation": True}, LEARNED])
def test_derivatives(draw, options):
    head = create(2, **options).eval()
    labels = torch.tensor([[0, 1]])
    given = draw(1, 2, 4, 2).requires_grad_(), draw(1, 1, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda support, query: head(support, labels, query, 2), given)


@pytest.mark.parametrize("options", [{}, LEARNED])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_types(draw, options, dtype):
    head = create(4, False, **options).float()
    given = (draw(1, 2, 4, 4).to(dtype), torch.tensor([[0, 1]]), draw(1, 3, 4, 4).to(dtype), 2)
    found = head(*given)
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(*given), found)


def test_every_module_learns_after_one_step(draw):
    head = create(8, **LEARNED)
    torch.nn.init.zeros_(head.manipulate.last.weight)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    given = draw(1, 3, 25, 8), torch.tensor([[0, 1, 2]]), draw(1, 6, 25, 8), 3

    def slopes():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(*given)[0], torch.arange(6) % 3).backward()
        return {name: float(one.grad.abs().max()) for name, one in head.named_parameters()}

    first = slopes()
    of_manipulation = {name for name in first if name.startswith("manipulate.") and first[name] > 0}
    assert of_manipulation == {"manipulate.last.weight", "manipulate.last.bias"}
    optimizer.step()
    # A bias before a softmax's cosines may matter little, but never nothing.
    assert {name for name, slope in slopes().items() if not slope > 0} == set()


@pytest.mark.parametrize("options", [{"foreground": "features"}, {"reduce": True}, {"manipulation": True}, LEARNED])
def test_parts_that_were_not_trained_are_not_used(draw, options):
    head = heads.create("spatial_alignment", **options)
    assert head.learned
    given = draw(1, 2, 4, 4), torch.tensor([[0, 1]]), draw(1, 3, 4, 4), 2
    with pytest.raises(FieldmarkError, match="train the objective lssa"):
        head(*given)
    head.setup(4)
    assert head.double()(*given).shape == (1, 3, 2)
    with pytest.raises(FieldmarkError, match="head spatial_alignment learned 4"):
        head(draw(1, 2, 4, 6), torch.tensor([[0, 1]]), draw(1, 3, 4, 6), 2)


def test_sets_need_the_layout_that_a_part_needs(draw):
    labels = torch.tensor([[0, 1]])
    for options in ({"foreground": "full"}, {"manipulation": True}):
        with pytest.raises(FieldmarkError, match="need square maps"):
            create(4, **options)(draw(1, 2, 6, 4), labels, draw(1, 3, 6, 4), 2)
    for options in ({"foreground": "full"}, {"correspondence": False}):
        with pytest.raises(FieldmarkError, match="needs as many"):
            create(4, **options)(draw(1, 2, 9, 4), labels, draw(1, 3, 4, 4), 2)
    head = create(4, manipulation=True)
    assert head(draw(1, 2, 6, 4), labels, draw(1, 3, 9, 4), 2).shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foreground": "ful"}, "did you mean 'full'"),
        ({"distance": "euclid"}, "did you mean 'euclidean'"),
        ({"padding": "zero"}, "did you mean 'zeros'"),
        ({"temperature": 0.0}, "above 0"),
        ({"scale": -1.0}, "above 0"),
        ({"max_offset": 0.0}, "above 0"),
        ({"memory": 0}, "at least 1 megabyte"),
        ({"reduce": True, "correspondence": False}, "which is off"),
        ({"manipulation": "yes"}, "expected true or false"),
    ],
)
def test_refused_where_it_is_made(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match=message):
        heads.create("spatial_alignment", **options)
