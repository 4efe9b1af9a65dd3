"""Pictures of a spatial alignment: right colours at right places, one scale, and no text on top of another."""

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from fieldmark import explain
from fieldmark.errors import FieldmarkError
from fieldmark.explain.panels import Scale, cell_by_cell, over_image

_spec = importlib.util.spec_from_file_location("explain_scenes_of_panels", Path(__file__).with_name("scenes.py"))
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)


def planted(grid=(3, 4), shape=(48, 64), name="query", masks=True):
    """An alignment of noise with every part."""
    rng = np.random.default_rng(0)
    count = grid[0] * grid[1]
    stages = ("support", "correspondence", "manipulation")
    options = {"foreground": "full", "correspondence": True, "reduce": True, "manipulation": True, "temperature": 1.0,
               "distance": "squared_euclidean"}  # fmt: skip
    added = -rng.random(count)
    return explain.Alignment(
        float(added.sum()), scenes.noise(0, *shape), scenes.noise(1, *shape),
        {name: 10 * rng.random(grid) for name in ("query", *stages)},
        {name: rng.random((count, count)) for name in stages},
        {name: rng.random(grid) for name in ("query", "support")} if masks else {},
        added, np.eye(count), np.zeros((2, *grid)),
        {"backbone": "none", "head_options": options, "trained_head": True, "heat_of": "maximum", "size": list(shape)},
        name,
    )  # fmt: skip


def texts(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [one for one in figure.findobj(Text) if one.get_text().strip() and one.get_visible()]
    drawn = [one for one in found if one.axes is None or one in one.axes.texts]
    return [(one, one.get_window_extent(canvas.get_renderer())) for one in drawn]


@pytest.mark.parametrize(
    ("grid", "shape"), [((3, 4), (48, 64)), ((10, 10), (84, 84)), ((4, 2), (64, 32)), ((2, 5), (32, 80))]
)
def test_no_text_touches_another_or_leaves_the_sheet(grid, shape):
    figure = explain.alignment_picture(planted(grid, shape, "a_very_long_name_of_a_file_" * 5 + ".jpg"))
    found = texts(figure)
    assert len(found) > 30
    for (one, first), (other, second) in itertools.combinations(found, 2):
        assert not first.overlaps(second), (one.get_text(), other.get_text())
    width, height = figure.bbox.size
    for one, box in found:
        assert box.x0 >= 0, one.get_text()
        assert box.y0 >= 0, one.get_text()
        assert box.x1 <= width, one.get_text()
        assert box.y1 <= height, one.get_text()


def test_maps_that_are_compared_share_one_scale():
    alignment = planted()
    values = np.concatenate([one.ravel() for one in alignment.heat.values()])
    shown = [one.get_text() for one, _ in texts(explain.heat_maps(alignment))]
    assert shown.count(f"{values.max():.3g}") == shown.count(f"{values.min():.3g}") == 1
    cosines = np.concatenate([one.ravel() for one in alignment.correlations.values()])
    shown = [one.get_text() for one, _ in texts(explain.correlations(alignment))]
    assert shown.count(f"{cosines.max():.3g}") == 1
    for stage in alignment.correlations:
        assert f"mean of the diagonal {alignment.diagonal(stage):.3f}" in shown


def test_shares_in_the_cells_add_up_to_all():
    alignment = planted()
    shown = [one.get_text() for one, _ in texts(explain.contributions(alignment))]
    shares = [f"{100 * share:.1f}" for share in alignment.contributions / alignment.contributions.sum()]
    assert sorted(text for text in shown if text in shares) == sorted(shares)
    assert sum(map(float, shares)) == pytest.approx(100, abs=1)
    assert f"sum: {-alignment.score:.4g}" in shown
    assert any("shares in %" in text for text in shown)
    many = [one.get_text() for one, _ in texts(explain.contributions(planted((11, 10), (110, 100))))]
    assert len(many) < 12  # more than 100 places: too small to be read
    assert not any("shares in %" in text for text in many)


def test_colours_follow_the_values():
    scale = Scale(0.0, 1.0, "")
    values = np.array([[0.0, 1.0], [0.5, 2.0]])
    cells = cell_by_cell(values, scale, (20, 40))
    assert cells.shape == (20, 40, 3)
    assert (cells[:10, :20] == (68, 1, 84)).all()  # the two ends of viridis
    assert (cells[:10, 20:] == (253, 231, 36)).all()
    assert (cells[10:, 20:] == cells[0, 39]).all()  # beyond the end: its colour
    assert (cells[10:, :20] == scale.colours(np.array(0.5))).all()
    assert (Scale.of([np.ones((2, 2))], "").colours(np.ones((2, 2))) == (68, 1, 84)).all()  # nothing to tell apart


def test_a_map_lies_over_its_image_where_its_cells_are():
    image = np.full((40, 40, 3), 100, np.uint8)
    values = np.zeros((4, 4))
    values[1, 3] = 1
    drawn = over_image(image, values, Scale(0.0, 1.0, "")).astype(int)
    brightest = np.unravel_index(drawn.sum(-1).argmax(), (40, 40))
    assert 10 <= brightest[0] < 20
    assert 30 <= brightest[1] < 40
    assert (drawn[30:, :20] == np.rint(0.45 * 100 + 0.55 * np.array((68, 1, 84)))).all()


def test_parts_can_be_chosen_and_masks_are_drawn_only_where_there_are_some():
    with_masks, without = planted(), planted(masks=False)
    assert explain.drawable(with_masks) == list(explain.ALIGNMENT_PARTS)
    assert explain.drawable(without) == ["contributions", "heat_maps", "correlations"]
    titles = [one.get_text() for one, _ in texts(explain.alignment_picture(without))]
    assert "Foreground" not in titles
    assert {"Where they differ", "Heat maps", "Correlation of places"} <= set(titles)
    without.facts["head_options"]["foreground"] = "none"
    for call in (lambda: explain.foreground(without), lambda: explain.alignment_picture(without, ["foreground"])):
        with pytest.raises(FieldmarkError, match=r"no foreground mask to draw: .* 'none'"):
            call()
    with pytest.raises(FieldmarkError, match="did you mean 'heat_maps'"):
        explain.alignment_picture(with_masks, ["heat_map"])
    assert explain.foreground(with_masks).get_size_inches()[0] == 12


def test_the_title_says_what_the_head_was():
    alignment = planted()
    shown = " ".join(one.get_text() for one, _ in texts(explain.alignment_picture(alignment, ["correlations"])))
    assert f"Distance after spatial alignment: {-alignment.score:.4g}" in shown
    assert "FOE (full), LSC with g (temperature 1), SSM, trained" in shown
    options = {**alignment.facts["head_options"], "foreground": "none", "correspondence": False, "manipulation": False}
    bare = dataclasses.replace(alignment, facts={**alignment.facts, "head_options": options, "trained_head": False})
    assert explain.parts_in_words(bare.facts) == "no alignment, not trained"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_picture_is_the_same_file(tmp_path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        explain.save_picture(explain.alignment_picture(planted(), ["contributions"]), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_heat_map_of_a_batch():
    maps = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = [[[max(maps[b, :, y, x].tolist()) for x in range(4)] for y in range(3)] for b in range(2)]
    assert explain.heat_map(maps).tolist() == expected
