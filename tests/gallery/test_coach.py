"""The coach finds what was planted: a wrong label, copies, a weak class, what is confused and where, what to label."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones
from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError
from fieldmark.gallery import Embedder, Gallery
from fieldmark.gallery import coach as coach_module
from fieldmark.gallery.advice import COLUMNS, Advice, ToLabel
from fieldmark.gallery.calibration import best_temperature, spread
from fieldmark.gallery.coach import Classes, coach
from fieldmark.gallery.place_vectors import PlaceVectors
from fieldmark.heads import Whitened

sys.path.insert(0, str(Path(__file__).parent))
from drawn import picture

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")


def pixels() -> Embedder:
    return Embedder(backbones.create("pixels", size=24), size=24)


def make(place: Path, shots: list, labels: list[str], embedder: Embedder | None = None) -> Gallery:
    gallery = Gallery.open(place, create=True)
    gallery.enroll(shots, labels, embedder=embedder or pixels(), progress=False)
    return gallery


@pytest.fixture
def gallery(tmp_path):
    """Reds with a green one among them, greens, blues with a copy of a grey one, and a single grey."""
    shots = [picture("red", n) for n in range(5)] + [picture("green", 77)]
    labels = ["red"] * 6
    shots += [picture("green", n) for n in range(5)] + [picture("blue", n) for n in range(5)]
    labels += ["green"] * 5 + ["blue"] * 5
    smooth = Image.fromarray(picture("blue", 2, side=6)).resize((96, 96), Image.Resampling.BICUBIC)
    shots[-3] = np.asarray(smooth)
    file = io.BytesIO()
    smooth.resize((130, 130), Image.Resampling.BICUBIC).save(file, "jpeg", quality=60)
    again = np.asarray(Image.open(file))
    return make(tmp_path / "gallery", [*shots, again, picture("grey", 0)], [*labels, "blue", "grey"])


def test_a_wrong_label_is_found_and_nothing_else(gallery):
    found = coach(gallery).mislabelled
    assert [(one.photo.class_name, one.looks_like, one.nearest.class_name) for one in found] == [
        ("red", "green", "green")
    ]
    assert found[0].photo.id == sorted(photo.id for photo in gallery.photos("red"))[5]
    assert 0.5 <= found[0].sure <= 1


def test_copies_are_found_within_and_across_classes(gallery, tmp_path):
    blues = sorted(photo.id for photo in gallery.photos("blue"))
    found = coach(gallery).duplicates
    assert [(one.photo.id, one.copy.id, one.same_file, one.across) for one in found] == [
        (blues[2], blues[5], False, False)
    ]
    gallery.enroll([picture("red", 3)], "green", progress=False)
    first = coach(gallery).duplicates[0]
    assert (first.photo.class_name, first.copy.class_name, first.same_file, first.across) == (
        "red", "green", True, True
    )  # fmt: skip


def test_the_neediest_classes_come_first(gallery):
    needs = coach(gallery).needs
    assert needs[0].class_name == "grey"
    assert (needs[0].photos, needs[0].mistaken, needs[0].margin) == (1, None, None)
    assert needs[1].class_name == "red"
    assert (needs[1].mistaken, needs[1].expected_error) == (1, 2 / 8)
    assert sorted(one.class_name for one in needs[2:]) == ["blue", "green"]


class Tiles(backbones.Backbone):
    """Mean colours of 4 x 4 tiles."""

    def __init__(self) -> None:
        super().__init__(3, 64, mean=(0.0,) * 3, std=(1.0,) * 3)
        self.name, self.options = "tiles", {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 4)


def test_confused_classes_and_the_part(tmp_path):
    """Two classes that differ at the left edge a little, and have one tile in common that nothing else has."""
    draw = np.random.default_rng(0)

    def shot(edge: int, mark: tuple[int, int, int], noise: int = 20) -> np.ndarray:
        image = 100 + draw.integers(-noise, noise + 1, (4, 4, 3)).repeat(16, 0).repeat(16, 1)
        image[:, :16, 2] += edge
        image[16:32, 32:48] = mark
        return image.astype(np.uint8)

    yellow, blue = (250, 250, 0), (0, 0, 250)
    shots = [shot(10, yellow) for _ in range(4)] + [shot(-10, yellow) for _ in range(4)] + [
        shot(0, blue) for _ in range(4)
    ]  # fmt: skip
    gallery = make(tmp_path / "g", shots, ["a"] * 4 + ["b"] * 4 + ["c"] * 4, Embedder(Tiles(), size=64))
    first = coach(gallery).confusions[0]
    assert first.classes == ("a", "b")
    assert first.mistaken <= first.judged == 8
    assert first.part is not None
    assert {first.part.photo.class_name, first.part.other.class_name} == {"a", "b"}
    assert first.part.box == first.part.other_box == (32, 16, 48, 32)
    assert first.part.adds > 0
    assert first.part.likeness <= 1 + 1e-6
    assert "most by x 32-48, y 16-32" in first.what()


def test_parts_add_up_to_the_likeness_of_two_photos():
    sets = torch.rand(6, 16, 5, generator=torch.Generator().manual_seed(1))
    made = PlaceVectors(Whitened().fit_base(sets), torch.rand(5))
    vectors = made.vectors(sets)
    pairs = made.places(sets[0]) @ made.places(sets[4]).mT
    assert float(pairs.sum()) == pytest.approx(float(vectors[0] @ vectors[4]), abs=1e-5)


def test_leaving_out_is_what_a_plain_loop_gives(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(13, 6, generator=generator), dim=-1)
    targets = torch.tensor([0] * 5 + [1] * 4 + [2] * 3 + [3])
    monkeypatch.setattr(coach_module, "_SCORES_AT_ONCE", 8)  # two photos at a time
    classes = Classes(vectors, targets, list("abcd"))
    judged = classes.judge()
    for number in range(13):
        scores = {}
        for label in range(4):
            members = [i for i in range(13) if i != number and targets[i] == label]
            if members:
                mean = torch.stack([vectors[i] for i in members]).mean(0)
                scores[label] = float(vectors[number] @ mean / mean.norm())
        own = scores.pop(int(targets[number]), None)
        best = max(scores, key=scores.__getitem__)
        assert int(judged.other[number]) == best
        assert judged.other_score[number] == pytest.approx(scores[best], abs=1e-5)
        if own is None:
            assert np.isnan(judged.own_score[number])
            assert number not in judged.index
        else:
            assert judged.own_score[number] == pytest.approx(own, abs=1e-5)
            assert judged.wrong[number] == (scores[best] > own)


def test_label_next_what_is_unsure_and_not_ten_of_the_same(gallery, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    between = ((picture("red", 90).astype(int) + picture("green", 91)) // 2).astype(np.uint8)
    for number in range(10):  # the same scene ten times
        noisy = np.clip(between.astype(int) + np.random.default_rng(number).integers(-2, 3, between.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(inbox / f"same{number}.png")
    Image.fromarray(((picture("green", 92).astype(int) + picture("blue", 93)) // 2).astype(np.uint8)).save(
        inbox / "other.png"
    )
    Image.fromarray(picture("blue", 94)).save(inbox / "sure.png")
    Image.fromarray(picture("blue", 1)).save(inbox / "enrolled.png")
    (inbox / "bad.jpg").write_text("no image")
    advice = coach(gallery, inbox, top=3)
    names = [Path(one.path).name for one in advice.to_label]
    assert len(names) == 3
    assert sum(name.startswith("same") for name in names[:2]) == 1
    assert "other.png" in names[:2]
    assert {advice.to_label[0].looks_like, advice.to_label[0].or_like} <= {"red", "green", "blue", "grey"}
    assert len(advice.problems) == 1
    assert "bad.jpg" in advice.problems[0]
    assert all(0 <= one.margin <= 1 and 0 <= one.different <= 1 for one in advice.to_label)


def test_one_photo_a_class_one_class_and_none(tmp_path):
    shots = [picture(name, 0) for name in ("red", "green", "blue")]
    single = make(tmp_path / "single", shots, ["red", "green", "blue"])
    advice = coach(single)
    assert (advice.judged, advice.accuracy, advice.mislabelled, advice.confusions) == (0, None, [], [])
    assert [one.expected_error for one in advice.needs] == [0.5] * 3
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    Image.fromarray(picture("red", 8)).save(inbox / "a.png")
    assert coach(single, inbox).to_label[0].looks_like == "red"

    alone = make(tmp_path / "alone", shots[:1], ["red"])
    told = coach(alone, inbox)
    assert (told.photos, told.duplicates, told.mislabelled) == (1, [], [])
    assert (told.to_label[0].looks_like, told.to_label[0].or_like) == ("red", None)

    alone.remove("red")
    with pytest.raises(FieldmarkError, match="holds no photo; enroll some first"):
        coach(alone)
    with pytest.raises(FieldmarkError, match="is empty; enroll photos first"):
        coach(Gallery.open(tmp_path / "new", create=True))
    with pytest.raises(FieldmarkError, match="no folder at"):
        coach(single, tmp_path / "nowhere")
    with pytest.raises(FieldmarkError, match=r"sure is 1.2; expected 0 to 1"):
        coach(single, sure=1.2)


def test_probabilities_come_from_the_temperature_of_the_calibration(gallery):
    made, vectors = PlaceVectors.learn(gallery, [photo.id for photo in gallery.photos()])
    names = sorted({photo.class_name for photo in gallery.photos()})
    targets = torch.tensor([names.index(photo.class_name) for photo in gallery.photos()])
    classes = Classes(vectors, targets, names)
    judged = classes.judge()
    scores = classes.scores(vectors, targets)[judged.index]
    assert classes.temperature == pytest.approx(
        best_temperature(scores, targets[judged.index], 0.5 * spread(scores), 5.0), rel=1e-3
    )
    assert torch.allclose(made.vectors(torch.zeros(1, 1, 1728)).norm(), torch.ones(()))


def test_the_command_writes_table_csv_and_json(gallery, tmp_path, capsys):
    table, facts = tmp_path / "advice.csv", tmp_path / "advice.json"
    words = ["coach", "--gallery", gallery.uri, "--csv", str(table), "--json", str(facts), "--top", "2"]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert "Labels to check" in printed.out
    assert "Classes that need another photo (2 of 4)" in printed.out
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["advice"] for row in rows[:2]] == ["mislabelled", "duplicate"]
    assert (rows[0]["class"], rows[0]["other_class"]) == ("red", "green")
    assert sum(row["advice"] == "another photo" for row in rows) == 4
    read = json.loads(facts.read_text())
    assert read["mislabelled"][0]["looks_like"] == "green"
    assert read["duplicates"][0]["across"] is False
    assert (read["photos"], read["classes"]) == (18, 4)


def test_the_command_says_one_line(tmp_path, capsys):
    assert cli.main(["coach", "--gallery", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    made = make(tmp_path / "g", [picture("red", 0)], ["red"])
    made.remove("red")
    assert cli.main(["coach", "--gallery", made.uri]) == 2
    assert capsys.readouterr().err == f"fieldmark: gallery {made.uri} holds no photo; enroll some first\n"


def test_cells_are_no_formulas(tmp_path):
    listed = ToLabel("=cmd|x.png", "red", None, 0.5, 1.0)
    advice = Advice("g", 1, 1, 0, None, [], [], [], [], [listed], [])
    rows = list(csv.DictReader(io.StringIO(advice.to_csv(tmp_path / "a.csv").read_text())))
    assert rows[0]["file"] == "'=cmd|x.png"


def test_memory_is_not_quadratic(tmp_path, monkeypatch):
    """Scores and cosines are made a few rows at a time, however many photos there are."""
    from fieldmark.gallery import near_copies

    monkeypatch.setattr(near_copies, "_COSINES_AT_ONCE", 64)
    monkeypatch.setattr(coach_module, "_SCORES_AT_ONCE", 64)
    largest = []
    real = Classes.scores

    def watched(self, vectors, own=None):
        found = real(self, vectors, own)
        largest.append(found.numel())
        return found

    monkeypatch.setattr(Classes, "scores", watched)
    names = ["red", "green", "blue", "grey"]
    made = make(tmp_path / "g", [picture(name, n) for name in names for n in range(12)], np.repeat(names, 12).tolist())
    advice = coach(made)
    assert (advice.judged, advice.accuracy) == (48, 1.0)
    assert max(largest) <= 4 * 64
    assert advice.duplicates == []
