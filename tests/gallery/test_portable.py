"""Exported classifiers: their scores under onnxruntime and torch.export are those of the classifier itself."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones, heads
from fieldmark.backbones import Encoder, TrainedHead
from fieldmark.cli import main as cli
from fieldmark.data.images import fit_image
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.gallery import FewShotClassifier, export_classifier
from fieldmark.gallery.portable import TOLERANCE
from fieldmark.gallery.portable.heads import portable_head, portable_heads
from fieldmark.gallery.portable.loops import fit_logistic, sinkhorn_value

SIDE, WAY = 48, 3
TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "export.md"


def encoder(name: str = "conv4", **options) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = backbones.create(name, **options)
    return Encoder(backbone, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)).eval()


def pictures(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Stripes of another width and direction for each class, under noise."""
    generator, lines = np.random.default_rng(seed), np.arange(side)
    out = generator.integers(0, 90, (count, side, side, 3))
    for i in range(count):
        stripes = 150 * ((lines // (2 + 3 * (i % WAY))) % 2)
        out[i, ..., i % WAY] += stripes[:, None] if i % 2 else stripes
    return out.astype(np.uint8)


def fitted(head: str, model: Encoder | None = None, side: int = SIDE, **options) -> FewShotClassifier:
    images = pictures(7, side=side)
    classifier = FewShotClassifier(model or encoder(), head, size=side, device="cpu", reject=True, **options)
    return classifier.fit(images, [f"class {i % WAY}" for i in range(len(images))])


def load(path: Path):
    """A function from images and arrays to scores and descriptors."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()

        def run(*inputs):
            with torch.no_grad():
                return [one.numpy() for one in module(*(torch.from_numpy(one) for one in inputs))]

        return run
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: export)")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def gallery_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def check(classifier: FewShotClassifier, path: Path, counts=(1, 5)) -> None:
    """The file's scores are the classifier's, for other numbers of images than were traced."""
    done = export_classifier(classifier, path)
    assert done.difference <= TOLERANCE
    run, gallery, facts = load(done.model), gallery_of(done.gallery), json.loads(done.description.read_text())
    for count in counts:
        images = pictures(count, seed=count)
        expected = classifier.score_descriptors(classifier.embedder_.embed(images)).numpy()
        scores, _ = run(images, *(gallery[name] for name in facts["inputs"][1:]))
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE * scale)
        assert scores.std() > 1e-3  # not all the same


# A graph with a loop takes several seconds to trace.
FAST = ["prototype", "nearest", "matching", "fusion", "dense_connections", "local_knn", "spatial_alignment"]
CASES = [
    *[pytest.param(name, {}, id=name) for name in FAST],
    pytest.param("prototype", {"metric": "cosine", "scale": 10.0}, id="prototype cosine"),
    pytest.param("local_knn", {"k": 3}, id="local_knn 3"),
    pytest.param("spatial_alignment", {"foreground": "mask", "temperature": 0.05}, id="spatial_alignment mask"),
    pytest.param("dense_connections", {"weights": "equal", "variant": "paper"}, id="dense_connections equal"),
]
LOOPS = [
    pytest.param("emd", {"solver": "sinkhorn"}, id="emd"),
    pytest.param("emd", {"solver": "sinkhorn", "shots": "nearest", "weights": "equal"}, id="emd nearest"),
    pytest.param("emd", {"solver": "sinkhorn", "shots": "fusion", "variant": "paper"}, id="emd fusion"),
    pytest.param("logistic", {}, id="logistic"),
    pytest.param("whitened", {}, id="whitened"),
]


@pytest.mark.parametrize(("head", "options"), CASES)
def test_torch_export_gives_the_same_scores(head, options, tmp_path):
    check(fitted(head, head_options=options), tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("head", "options"),
    [CASES[0], *(pytest.param(*one.values, id=one.id, marks=pytest.mark.slow) for one in CASES[1:])],
)
def test_onnx_gives_the_same_scores(head, options, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
    check(fitted(head, head_options=options), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize(("head", "options"), LOOPS)
def test_heads_with_iterations_give_the_same_scores(head, options, suffix, tmp_path):
    check(fitted(head, head_options=options), tmp_path / f"model{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize(
    ("name", "options", "side"),
    [("resnet12", {}, 84), ("efficientnet_lite0", {}, 96), ("efficientnet_lite0", {}, 224)],
)
def test_backbones(name, options, side, suffix, tmp_path):
    classifier = fitted("prototype", encoder(name, **options), side)
    done = export_classifier(classifier, tmp_path / f"model{suffix}")
    images, gallery = pictures(3, 9, side), gallery_of(done.gallery)
    expected = classifier.score_descriptors(classifier.embedder_.embed(images)).numpy()
    scores, _ = load(done.model)(images, gallery["support"], gallery["labels"], gallery["classes"])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_learned_alignment(suffix, tmp_path):
    """Deformable convolution, its mask, the reduction and the sampling of moved maps."""
    model = encoder("conv4", last_pool=False)
    options = {"foreground": "full", "reduce": True, "manipulation": True, "temperature": 0.1}
    head = heads.create("spatial_alignment", **options)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head.setup(64)
        for one in head.parameters():  # moved away from the identity that it starts as
            torch.nn.init.normal_(one, std=0.2)
    model.head = TrainedHead("spatial_alignment", options, dict(head.state_dict()))
    check(fitted("spatial_alignment", model), tmp_path / f"model{suffix}")


def test_classes_are_added_by_its_own_descriptors(tmp_path):
    """The gallery of the file, enlarged by what the file itself says of new photos, is the enlarged classifier."""
    classifier = fitted("prototype", head_options={"metric": "cosine"})
    done = export_classifier(classifier, tmp_path / "model.pt2")
    run, gallery = load(done.model), gallery_of(done.gallery)
    new, asked = np.ascontiguousarray(pictures(2, 5)[:, ::-1]), pictures(4, 6)
    _, described = run(new, gallery["support"], gallery["labels"], gallery["classes"])
    support = np.concatenate([gallery["support"], described])
    # Any whole number will do for a class.
    labels, classes = np.append(gallery["labels"], [41, 41]), np.append(gallery["classes"], 41)
    scores, _ = run(asked, support, labels, classes)
    classifier.partial_fit(new, ["new", "new"])
    np.testing.assert_allclose(scores, classifier.decision_function(asked), atol=1e-4)


@pytest.mark.slow
def test_the_exported_fit_adds_classes(tmp_path):
    """Against scikit-learn, which stands for the optimum, and the classifier with the same whitening."""
    from sklearn.linear_model import LogisticRegression

    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
    classifier = fitted("whitened")
    done = export_classifier(classifier, tmp_path / "model.onnx")
    assert done.fit is not None
    run, fit, gallery = load(done.model), load(done.fit), gallery_of(done.gallery)
    mine = [gallery[name] for name in ("weight", "bias", "centre")]
    new = pictures(2, 5)[:, ::-1]
    _, described = run(new, *mine)
    support = np.concatenate([gallery["support"], described])
    labels, classes = np.append(gallery["labels"], [3, 3]), np.append(gallery["classes"], 3)
    weight, bias, centre = fit(support, labels, classes)
    np.testing.assert_allclose(centre, support[:, 0].mean(0), atol=1e-5)
    vectors = support[:, 0].astype(np.float64) - support[:, 0].astype(np.float64).mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = LogisticRegression(C=100.0, tol=1e-10, max_iter=10000).fit(vectors, labels)
    np.testing.assert_allclose(weight, model.coef_, atol=1e-3)
    head = classifier.head_
    expected = head(
        torch.cat([classifier.descriptors_["local"], classifier.embedder_.embed(new)["local"]])[None],
        torch.from_numpy(labels)[None], classifier.embedder_.embed(pictures(4, 6))["local"][None], WAY + 1,
    )[0]  # fmt: skip
    scores, _ = run(pictures(4, 6), weight, bias, centre)
    # The classifier's own solver stops within some 1e-4 of the optimum.
    np.testing.assert_allclose(scores, expected, atol=2e-3)


def test_the_fit_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(5)
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64) + labels.unsqueeze(1)
    for C in (0.1, 100.0):
        weight, bias = fit_logistic(x, torch.eye(4, dtype=torch.float64)[labels], C)
        model = LogisticRegression(C=C, tol=1e-10, max_iter=100_000).fit(x.numpy(), labels.numpy())
        np.testing.assert_allclose(weight, model.coef_, atol=1e-5)
        np.testing.assert_allclose(bias - bias.mean(), model.intercept_ - model.intercept_.mean(), atol=1e-5)


def test_the_value_of_sinkhorn_is_near_pots():
    ot = pytest.importorskip("ot", reason="POT is not installed (extra: test)")
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(3, 6, 5, generator=generator)
    supply, demand = torch.full((3, 6), 1 / 6), torch.full((3, 5), 1 / 5)
    from fieldmark.functional.transport.sinkhorn import Sinkhorn

    found = sinkhorn_value(cost, supply, demand, Sinkhorn(epsilon=1e-3, tolerance=1e-6))
    for one, value in zip(cost, found, strict=True):
        exact = ot.emd2([1 / 6] * 6, [1 / 5] * 5, one.double().numpy())
        assert exact - 1e-6 <= float(value) <= exact + 1e-3


def test_files_and_metadata(tmp_path):
    classifier = fitted("prototype", image_fit="pad")
    done = export_classifier(classifier, tmp_path / "birds.pt2")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["birds.json", "birds.npz", "birds.pt2"]
    inside = {"fieldmark.json": ""}
    torch.export.load(done.model, extra_files=inside)
    text = inside["fieldmark.json"]
    facts = json.loads(text if isinstance(text, str) else text.decode())
    assert facts == json.loads(done.description.read_text()) == done.facts
    assert facts["classes"] == ["class 0", "class 1", "class 2"]
    assert facts["temperature"] == classifier.calibration_.temperature
    assert facts["line"] == classifier.calibration_.threshold
    assert facts["preprocessing"]["size"] == [SIDE, SIDE]
    assert facts["preprocessing"]["fit"] == "pad"
    assert facts["preprocessing"]["mean"] == [0.4, 0.5, 0.6]


def test_onnx_has_its_metadata_inside(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: export)")
    done = export_classifier(fitted("prototype"), tmp_path / "birds.onnx")
    model = onnx.load(done.model)
    onnx.checker.check_model(model)
    assert json.loads(next(one.value for one in model.metadata_props if one.key == "fieldmark")) == done.facts
    sizes = {one.name: [part.dim_param or part.dim_value for part in one.type.tensor_type.shape.dim]
             for one in model.graph.input}  # fmt: skip
    assert sizes["images"][1:] == [SIDE, SIDE, 3]
    assert all(isinstance(sizes[name][0], str) for name in ("images", "support", "labels", "classes"))


@pytest.mark.parametrize("head", ["structured_fc", "linear", "cosine_classifier"])
def test_heads_that_are_trained_are_refused_in_one_line(head):
    with pytest.raises(FieldmarkError, match="cannot be exported") as caught:
        portable_head(heads.create(head), head)
    assert "whitened" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "options", "words"),
    [
        ("emd", {}, "solver=sinkhorn"),
        ("emd", {"solver": "sinkhorn", "shots": "merge"}, "shots"),
        ("logistic", {"features": "sum"}, "features='global'"),
    ],
)
def test_options_that_cannot_be_exported(head, options, words):
    with pytest.raises(FieldmarkError, match=words):
        portable_head(heads.create(head, **options), head)


def test_every_head_is_exported_or_refused():
    for name in heads.names():
        head = heads.create(name, **({"solver": "sinkhorn"} if name == "emd" else {}))
        if name in portable_heads():
            assert portable_head(head, name).gallery
        else:
            with pytest.raises(FieldmarkError):
                portable_head(head, name)


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(FieldmarkError, match=r"ends in \.txt"):
        export_classifier(fitted("prototype"), tmp_path / "model.txt")
    with pytest.raises(FieldmarkError, match="not fitted"):
        export_classifier(FewShotClassifier(encoder()), tmp_path / "model.pt2")
    with pytest.raises(FieldmarkError, match="dense or feature_pyramid"):
        export_classifier(fitted("local_knn", descriptors="grid"), tmp_path / "model.pt2")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(MissingExtraError, match=re.escape("fieldmark[export]")):
        export_classifier(fitted("prototype"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_differs_is_not_written(tmp_path, monkeypatch):
    """Spoil what is compared with: the check itself can fail."""
    classifier = fitted("prototype")
    right = FewShotClassifier.score_descriptors
    monkeypatch.setattr(FewShotClassifier, "score_descriptors", lambda self, sets: right(self, sets) * 1.01)
    with pytest.raises(FieldmarkError, match="nothing was written"):
        export_classifier(classifier, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    classifier = fitted("prototype")
    monkeypatch.setattr(torch.export, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(FieldmarkError, match="disk is full"):
        export_classifier(classifier, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_tutorials_preparation_is_fieldmarks(fit):
    """The few lines with Pillow alone give the very same pixels."""
    source = re.search(r"```python title=\"birds.py\"\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert source is not None
    program = source[1]
    scope: dict = {}
    exec(program[program.index("def prepared") : program.index("\n\n\n", program.index("def prepared"))],
         {"Image": Image, "ImageOps": __import__("PIL.ImageOps").ImageOps, "np": np}, scope)  # fmt: skip
    for width, height in ((300, 200), (51, 203), (48, 48), (20, 33)):
        image = Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))
        rules = {"size": [SIDE, SIDE + 8], "fit": fit}
        np.testing.assert_array_equal(scope["prepared"](image, rules), fit_image(image, (SIDE, SIDE + 8), fit))


@pytest.mark.slow
def test_the_tutorials_program_answers_as_the_classifier_does(tmp_path):
    """Run as a program of its own, to which fieldmark and torch are forbidden."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
    classifier = fitted("whitened")
    export_classifier(classifier, tmp_path / "birds.onnx")
    images = [Image.fromarray(one).resize((90, 70)) for one in pictures(4, 3)]
    images[3] = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    source = re.search(r"```python title=\"birds.py\"\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert source is not None
    forbid = (
        "import sys\nfor name in ('torch', 'fieldmark', 'timm', 'sklearn'):\n    sys.modules[name] = None\n"
    )  # fmt: skip
    (tmp_path / "birds.py").write_text(forbid + source[1])
    done = subprocess.run(
        [sys.executable, "birds.py", *map(str, paths)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    for line, answer, path in zip(lines, classifier.predict_detailed(paths), paths, strict=True):
        assert line == f"{path}: {answer.label} ({answer.confidence:.1%})"


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    pytest.importorskip("lancedb", reason="lancedb is not installed (extra: gallery)")
    from fieldmark.gallery import Embedder, Gallery

    gallery = Gallery.open(tmp_path / "birds", create=True)
    embedder = Embedder(backbones.create("pixels"), size=32, device="cpu")
    gallery.enroll(list(pictures(6)), [f"class {i % WAY}" for i in range(6)], embedder=embedder)
    arguments = ["export", str(tmp_path / "out.pt2"), "--gallery", str(tmp_path / "birds"), "--head", "prototype"]
    assert cli.main([*arguments, "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [Path(one).name for one in report["files"]] == ["out.pt2", "out.npz", "out.json"]
    assert report["difference"] <= TOLERANCE
    assert cli.main([*arguments[:-1], "emd"]) == cli.EXIT_BAD_INPUT
    assert "solver=sinkhorn" in capsys.readouterr().err
