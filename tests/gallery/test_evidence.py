"""Evidence adds up to the answer beside it, for every head that splits; its page needs nothing else and is safe."""

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from fieldmark import backbones, heads
from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.gallery import FewShotClassifier
from fieldmark.gallery.evidence import strongest

sys.path.insert(0, str(Path(__file__).parent))

from drawn import picture

CLASSES = ("blue", "green", "red")
SPLIT = ["whitened", "logistic", "prototype", "emd", "local_knn"]
WHOLE = ["nearest", "fusion", "matching", "cosine_classifier"]
OPTIONS = {"prototype": {"metric": "cosine", "scale": 10.0}}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(backbones.create("conv4", channels=8), (0.5,) * 3, (0.3,) * 3).eval()


def photos(shots=(3, 2, 1)):
    images = [picture(name, i, 48) for name, shot in zip(CLASSES, shots, strict=True) for i in range(shot)]
    return np.stack(images), np.repeat(CLASSES, shots)


@pytest.fixture
def make(encoder):
    def make(head="whitened", shots=(3, 2, 1), **options):
        given = {"size": 48, "head_options": OPTIONS.get(head), **options}
        return FewShotClassifier(encoder, head, **given).fit(*photos(shots))

    return make


QUERY = picture("green", 77, 48)


@pytest.mark.parametrize("head", SPLIT)
def test_what_is_shown_adds_up_to_the_scores_of_the_nearest_and_the_next(make, head):
    classifier = make(head)
    found = classifier.explain(QUERY, photos=1)
    scores = classifier.decision_function([QUERY])[0]
    order = np.argsort(-scores)
    assert found.additive
    assert [one.label for one in found.classes] == classifier.classes_[order[:2]].tolist()
    assert found.prediction.label == found.classes[0].label == "green"
    for one, place in zip(found.classes, order, strict=False):
        assert one.score == pytest.approx(scores[place], abs=2e-3 * (1 + abs(float(scores[place]))))
        assert sum(value for _, value in one.terms) == pytest.approx(one.score, abs=1e-6)
        assert one.places.sum() + one.constant == pytest.approx(one.score, abs=1e-5)
        for photo in one.photos:
            assert photo.contributions.sum() == pytest.approx(photo.adds, abs=1e-6)
            for pair in photo.regions:
                assert pair.adds == photo.contributions[pair.query, pair.support] > 0
        assert one.count == {"blue": 3, "green": 2, "red": 1}[one.label]
    np.testing.assert_allclose(found.difference, found.classes[0].places - found.classes[1].places)


@pytest.mark.parametrize("head", WHOLE)
def test_heads_that_do_not_split_say_so(make, head):
    classifier = make(head)
    found = classifier.explain(QUERY)
    assert not found.additive
    scores = np.sort(classifier.decision_function([QUERY])[0])[::-1]
    assert [one.score for one in found.classes] == pytest.approx(scores[:2].tolist(), abs=1e-4)
    assert f"Scores of head {head} do not split into places" in found.to_html()


def test_every_head_is_tried():
    taken = {*SPLIT, *WHOLE, "spatial_alignment", "structured_fc", "dense_connections", "linear"}
    assert taken == set(heads.names()), "a new head: does its score split?"


def test_the_photos_that_add_most_come_first(make):
    found = make(shots=(5, 5, 5)).explain(QUERY, photos=2)
    for one in found.classes:
        adds = [photo.adds for photo in one.photos]
        assert len(adds) == 2
        assert adds == sorted(adds, reverse=True)
        assert one.count == 5
    every = make(shots=(5, 5, 5)).explain(QUERY, photos=9)
    assert [photo.index for photo in every.classes[0].photos][:2] == [p.index for p in found.classes[0].photos]
    assert len(every.classes[0].photos) == 5
    assert every.classes[0].rest == 0.0


def test_another_class_may_be_compared_with(make):
    classifier = make()
    last = classifier.classes_[classifier.decision_function([QUERY])[0].argmin()]
    assert classifier.explain(QUERY, against=last).classes[1].label == last
    with pytest.raises(FieldmarkError, match="did you mean 'blue'"):
        classifier.explain(QUERY, against="blu")
    with pytest.raises(FieldmarkError, match="'green' is the nearest itself"):
        classifier.explain(QUERY, against="green")


def test_one_class_alone_is_shown_alone(make):
    found = make(shots=(0, 2, 0)).explain(QUERY)
    assert len(found.classes) == 1
    assert found.difference is None
    assert found.to_html().count("<h2") == 1
    found.figure()


def test_the_dictionary_is_json_and_says_it_all(make):
    found = make().explain(QUERY)
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert facts["prediction"]["label"] == "green"
    assert facts["head"] == "whitened"
    assert len(facts["boxes"]) == facts["grid"][0] * facts["grid"][1] == 9
    for one in facts["classes"]:
        total = sum(photo["adds"] for photo in one["photos"]) + one["rest"] + one["others"] + one["constant"]
        assert total == pytest.approx(one["score"], abs=1e-6)


class Tags(HTMLParser):
    """Every tag with its attributes, and what is open at the end."""

    VOID = ("meta", "br", "rect", "image", "use", "i", "b")

    def __init__(self):
        super().__init__()
        self.found, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


NASTY = "<script>alert('x')</script> & \"q\" </style><img src=x onerror=alert(1)>"


def test_the_page_fetches_nothing_and_runs_nothing(make, tmp_path):
    found = make().explain(QUERY)
    text = found.to_html(tmp_path / "why.html")
    assert (tmp_path / "why.html").read_text(encoding="utf-8") == text
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    tags = Tags()
    tags.feed(text)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & {tag for tag, _ in tags.found}
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))


def test_names_are_only_text_on_the_page(encoder, tmp_path):
    images, _ = photos((2, 2, 0))
    path = tmp_path / "a <b>bold<b> & x.png"
    Image.fromarray(QUERY).save(path)
    classifier = FewShotClassifier(encoder, size=48).fit(images, [NASTY, NASTY, "z", "z"])
    found = classifier.explain(path)
    text = found.to_html()
    tags = Tags()
    tags.feed(text)
    kinds = {tag for tag, _ in tags.found}
    assert "script" not in kinds
    assert "img" not in kinds
    assert "<b>bold" not in text
    assert NASTY in "".join(tags.text)
    assert html.escape(path.name) in text
    FigureCanvasAgg(found.figure()).draw()  # names with $ or _ are no mathematics either


def test_a_name_of_dollars_is_drawn_as_it_is(encoder):
    images, _ = photos((2, 2, 0))
    found = FewShotClassifier(encoder, size=48).fit(images, ["$x_1$", "$x_1$", "a\\frac{", "a\\frac{"]).explain(QUERY)
    figure = found.figure()
    FigureCanvasAgg(figure).draw()
    words = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert any("x_1" in word for word in words)


def test_a_photo_that_has_gone_is_said_to_have_gone(encoder, tmp_path):
    images, labels = photos((2, 2, 0))
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    classifier = FewShotClassifier(encoder, size=48).fit(paths, labels)
    before = classifier.explain(QUERY)
    paths[2].unlink()
    found = classifier.explain(QUERY)
    assert found.to_dict() == before.to_dict()
    gone = [photo for one in found.classes for photo in one.photos if photo.image is None]
    assert [photo.name for photo in gone] == ["2.png"]
    assert "cannot be shown" in found.to_html()
    found.figure()


def test_the_figure_fills_its_sheet_and_nothing_is_cut_off(make):
    figure = make(shots=(3, 3, 3)).explain(QUERY).figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    renderer = canvas.get_renderer()
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1, text.get_text()
        assert box.x1 <= width + 1, text.get_text()
        assert box.y0 >= -1, text.get_text()
        assert box.y1 <= height + 1, text.get_text()


def test_rejected_photos_are_shown_as_such(make):
    classifier = make("prototype", shots=(8, 8, 8), reject=True)
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    found = classifier.explain(noise)
    text = re.sub(r"<[^>]+>", " ", found.to_html())
    assert "none of these" in text
    assert "nearest: " in text
    assert found.line == classifier.calibration_.threshold


@pytest.mark.parametrize(
    ("options", "words"),
    [({"photos": 0}, "photos is 0 and regions 3; expected at least 1"), ({"regions": 0}, "regions 0")],
)
def test_odd_requests_are_refused(make, options, words):
    with pytest.raises(FieldmarkError, match=words):
        make().explain(QUERY, **options)


def test_windows_are_no_map_of_places(encoder):
    classifier = FewShotClassifier(encoder, "local_knn", descriptors="grid", size=48).fit(*photos())
    with pytest.raises(FieldmarkError, match="has 'grid' descriptors; make it with descriptors='dense'"):
        classifier.explain(QUERY)


def test_a_bad_image_gets_its_line(make):
    with pytest.raises(FieldmarkError, match="image 0"):
        make().explain(b"no image")


def test_the_strongest_pairs_take_no_place_twice():
    each = np.array([[5.0, 4.0, 0.0], [4.5, 1.0, 0.0], [0.0, 0.0, -1.0]])
    assert [(one.query, one.support, one.adds) for one in strongest(each, 9)] == [(0, 0, 5.0), (1, 1, 1.0)]
