"""What the pictures show: right places, right brightness, and no text on top of another."""

import dataclasses
import importlib.util
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from fieldmark import explain
from fieldmark.errors import FieldmarkError
from fieldmark.explain.flows import flow_grid

_spec = importlib.util.spec_from_file_location("explain_scenes_of_pictures", Path(__file__).with_name("scenes.py"))
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)


def texts(figure):
    """All texts of a figure with the boxes that they take, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [one for one in figure.findobj(Text) if one.get_text().strip() and one.get_visible()]
    drawn = [one for one in found if one.axes is None or one.axes.axison or one in one.axes.texts]
    return [(one, one.get_window_extent(canvas.get_renderer())) for one in drawn]


def rendered(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def test_reconstruction_takes_the_strongest_patch_at_the_brightness_of_the_weight():
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8], image[:, 8:] = (200, 0, 0), (0, 100, 40)
    matching = scenes.planted([[0.5, 1.0], [0.3, 0.2]], [1.5, 0.5], (1, 2), image)
    built = explain.reconstruct(matching)
    assert (built[:, :8] == (0, 100, 40)).all()  # full brightness: the largest weight
    assert (built[:, 8:] == np.rint(np.array((200, 0, 0)) / 3)).all()


def test_patches_are_brought_to_the_size_of_their_place():
    image = scenes.noise(0, 24, 40)
    matching = scenes.planted(np.eye(15)[::-1], np.ones(15), (3, 5), image)
    assert explain.reconstruct(matching).shape == image.shape


def test_flow_grid_lights_what_is_matched_and_measures_the_weights():
    image = np.full((40, 40, 3), 250, np.uint8)
    flow = np.array([[0, 2.0, 0, 0], [0.5, 0, 1.0, 0], [0, 0, 0, 1.0], [0, 0, 0, 0]])
    grid = flow_grid(scenes.planted(flow, flow.sum(1), (2, 2), image), 400).astype(int)
    across = next(x for x in range(grid.shape[1]) if (grid[0, x] == 255).all())  # up to the gap
    half = across // 2
    first = grid[:across, :across]
    assert (first[5, half + 5] == 250).all()  # cell 0 sends all to cell 1: lit
    assert (first[5, 5] == 50).all()  # nothing goes there: a fifth
    second = grid[:across, -across:]
    assert (second[half + 5, 5] == 250).all()
    assert (second[5, 5] == 150).all()  # half of the largest flow, on top of the fifth
    bars = (grid == (230, 159, 0)).all(-1)
    lengths = sorted({(row[:across].sum(), row[-across:].sum()) for row in bars if row.any()}, reverse=True)
    assert lengths == [(across, round(0.75 * across)), (round(0.5 * across), 0)]
    assert (grid[-across:, -across:][:half] <= 50).mean() > 0.5  # a cell without flow stays dark


@pytest.mark.parametrize("what", [explain.PARTS, ("reconstruction",), ("flows", "overlay")])
@pytest.mark.parametrize("shape", [(48, 48), (96, 32), (32, 96)])
def test_no_text_touches_another_or_leaves_the_sheet(what, shape):
    image = scenes.noise(0, *shape)
    rng = np.random.default_rng(0)
    flow = rng.random((24, 24)) * (rng.random((24, 24)) < 0.1) + np.eye(24)
    matching = scenes.planted(flow, flow.sum(1), (4, 6), image, name="a_very_long_name_of_a_file_" * 5 + ".jpg")
    figure = explain.picture(matching, what, top=20)
    found = texts(figure)
    assert len(found) >= 5
    for (one, first), (other, second) in itertools.combinations(found, 2):
        assert not first.overlaps(second), (one.get_text(), other.get_text())
    width, height = figure.bbox.size
    for one, box in found:
        assert box.x0 >= 0, one.get_text()
        assert box.y0 >= 0, one.get_text()
        assert box.x1 <= width, one.get_text()
        assert box.y1 <= height, one.get_text()


def test_numbers_in_one_corner_stand_side_by_side():
    """A coarse node and a fine one begin at the same corner, and one node may have several matches."""
    image = scenes.noise()
    boxes = np.array([[0, 0, 32, 32], [0, 0, 16, 16], [16, 0, 32, 16], [0, 16, 16, 32], [16, 16, 32, 32.0]])
    nodes = explain.Nodes(boxes, np.array([[1, 2], [3, 4]]), True)
    flow = np.eye(5) + 0.3 * np.eye(5)[::-1]
    matching = dataclasses.replace(
        scenes.planted(np.eye(4), np.ones(4), (2, 2), image), flow=flow, cosine=flow, contributions=flow,
        similarity=flow.sum(), query_weights=flow.sum(1), support_weights=flow.sum(0),
        query_nodes=nodes, support_nodes=nodes,
    )  # fmt: skip
    found = texts(explain.overlay(matching, top=9))
    assert sum(one.get_text().isdigit() for one, _ in found) == 3 * 9
    for (one, first), (other, second) in itertools.combinations(found, 2):
        assert not first.overlaps(second), (one.get_text(), other.get_text())


def test_a_small_window_is_drawn_on_top_of_a_large_one():
    image = scenes.noise()
    image[:16] //= 2
    nodes = explain.Nodes(np.array([[8, 8, 16, 16], [0, 0, 32, 32], [16, 16, 32, 32.0]]), np.array([[0, 1, 2]]), False)
    planted = scenes.planted(np.eye(3), np.ones(3), (1, 3), image)
    matching = dataclasses.replace(
        planted, flow=np.eye(3)[[2, 1, 0]], query_nodes=nodes, support_nodes=nodes
    )  # fmt: skip
    built = explain.reconstruct(matching)
    assert (built[:8] == image[:8]).all()  # the whole image, where no other window is
    assert (built[16:, 16:].mean((0, 1)) < image[16:, 16:].mean((0, 1))).all()  # the darker patch of the first window
    assert (built[8:16, 8:16] != image[8:16, 8:16]).any()


def test_the_overlay_names_what_it_draws_and_what_it_leaves_out():
    flow = np.diag([4.0, 3.0, 2.0, 1.0])
    matching = scenes.planted(flow, flow.sum(1), (2, 2), scenes.noise())
    shown = [one.get_text() for one, _ in texts(explain.overlay(matching, top=2))]
    total = 12.5 / 4 * 0.5 * 10
    assert "2 more" in shown
    assert f"{total:.3f}" in shown
    assert "100.0 %" in shown
    assert "40.0 %" in shown
    assert shown.count("30.0 %") == 2  # the second match, and the two that are left out together
    everything = [one.get_text() for one, _ in texts(explain.overlay(matching, top=4))]
    assert not any("more" in text for text in everything)


@pytest.mark.parametrize("turned", [False, True])
def test_lines_and_boxes_join_the_matched_places(turned):
    """One match alone: its colour is in the query's cell and in the support's, and nowhere else in the images."""
    image = np.full((40, 40, 3), 128, np.uint8)
    flow = np.zeros((4, 4))
    flow[(3, 0) if turned else (0, 3)] = 4
    pixels = rendered(explain.overlay(scenes.planted(flow, flow.sum(1), (2, 2), image), top=1))
    colour = (np.abs(pixels - (230, 159, 0)).max(-1) < 12)[:, : int(7.9 * 100)]  # without the list
    grey = np.flatnonzero((pixels[:, 50] == 128).all(-1))
    top, bottom = grey[0], grey[-1]
    middle = (top + bottom) // 2
    left, right = colour[:, : int((0.4 + 3.45) * 100)], colour[:, int((0.4 + 3.45 + 0.7) * 100) :]
    half = int(3.45 * 100 / 2)
    if turned:
        assert left[middle + 5 : bottom, 40 + half :].sum() > 200  # the frame at the lower right
        assert right[top:middle, :half].sum() > 200  # and the one at the upper left
        assert left[: middle - 5, 40:].sum() == 0
        assert right[middle + 5 : bottom].sum() == 0
        return
    assert left[top:middle, 40 : 40 + half].sum() > 200  # the frame at the upper left
    assert right[middle + 5 : bottom, half:].sum() > 200  # and the one at the lower right
    assert left[middle + 5 : bottom, 40:].sum() == 0
    assert right[top : middle - 5, half + 5 :].sum() == 0


def test_many_cells_are_refused_where_they_cannot_be_read():
    matching = scenes.planted(np.eye(81), np.ones(81), (9, 9), scenes.noise(0, 36, 36))
    with pytest.raises(FieldmarkError, match="at most 64 cells and the query has 9 x 9"):
        explain.flows(matching)
    with pytest.raises(FieldmarkError, match="--what overlay,reconstruction"):
        explain.picture(matching)
    assert explain.picture(matching, ("overlay", "reconstruction")).get_size_inches()[0] == 12
    assert not explain.is_readable(matching)


def test_a_similarity_that_is_not_positive_has_no_shares(tmp_path):
    matching = scenes.planted(np.zeros((4, 4)), np.zeros(4), (2, 2), scenes.noise())
    assert matching.pairs() == []
    assert matching.share(0.0) is None
    assert matching.to_dict()["matches"] == []
    explain.save_picture(explain.picture(matching), tmp_path / "none.png")


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg", "PNG"])
def test_the_suffix_is_the_format_and_the_same_picture_is_the_same_file(tmp_path, suffix):
    matching = scenes.planted(np.eye(4), np.ones(4), (2, 2), scenes.noise(), name="图像 $\\no_formula$.png")
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        explain.save_picture(explain.picture(matching), path)
    content = paths[0].read_bytes()
    assert content == paths[1].read_bytes()
    if suffix.lower() == "png":
        assert Image.open(io.BytesIO(content)).size[0] == 12 * 130
    else:
        assert content.startswith(b"%PDF" if suffix == "pdf" else b"<?xml")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(path.name for path in paths)


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.gif"])
def test_other_formats_are_refused(tmp_path, name):
    matching = scenes.planted(np.eye(4), np.ones(4), (2, 2), scenes.noise())
    with pytest.raises(FieldmarkError, match=r"ends in .png, .pdf or .svg"):
        explain.save_picture(explain.reconstruction(matching), tmp_path / name)


def test_unknown_parts_and_numbers_are_refused():
    matching = scenes.planted(np.eye(4), np.ones(4), (2, 2), scenes.noise())
    with pytest.raises(FieldmarkError, match="did you mean 'flows'"):
        explain.picture(matching, ("flow",))
    with pytest.raises(FieldmarkError, match="without parts"):
        explain.picture(matching, ())
    for top in (0, 21):
        with pytest.raises(FieldmarkError, match="1 to 20"):
            explain.overlay(matching, top)


def test_windows_without_order_are_drawn_too(tmp_path):
    image = scenes.noise(0, 64, 64)
    found = explain.match(scenes.patches(), image, image, size=64, descriptors="sampling",
                          descriptor_options={"patches": 7}, weights="equal")  # fmt: skip
    explain.save_picture(explain.picture(found), tmp_path / "windows.png")
    assert np.allclose(np.diag(found.flow), 1)
    # Every window is rebuilt from itself, so what is covered is the image; the rest is black.
    built = explain.reconstruct(found)
    covered = np.zeros((64, 64), bool)
    for left, top, right, bottom in found.query_boxes.astype(int):
        covered[top:bottom, left:right] = True
    assert (built[covered] == image[covered]).all()
    assert (built[~covered] == 0).all()
