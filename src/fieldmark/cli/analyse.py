"""Look inside the embedding of a model: what is near what, where a classifier looks, how much is kept.

MODEL is a run folder, a model.safetensors file or a backbone's name; the images are any data set or folder. Writes
neighbours.png (nearest images), grad_cam.png (Grad-CAM of a linear classifier on all images), spectrum.png (explained
variance and singular values), clusters.png (Davies-Bouldin index by class) and analysis.json into the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.errors import FieldmarkError, unknown_name

EXAMPLE = "fieldmark analyse runs/glyphs_conv4 --data glyphs --split test --out analysis"
PARTS = ("neighbours", "grad_cam", "spectrum", "clusters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="run folder, model file, or name of a trained model or backbone")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder for pictures and numbers")
    parser.add_argument(
        "--what", default=",".join(PARTS), metavar="PART[,PART...]", help=f"some of {', '.join(PARTS)}; default: all"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", default="folder", metavar="NAME", help="data set (`fieldmark data`); default: folder")
    data.add_argument("--root", metavar="PATH", help="folder, zip or list file that holds it")
    data.add_argument("--split", help="train, val, test, trainval or all; default: test where there is one")
    data.add_argument("--size", type=int, help="pixels a side; default: what the model was trained at")
    data.add_argument("--fit", help="how images are brought to that size: crop, squash or pad")
    parts = parser.add_argument_group("parts")
    parts.add_argument("--queries", type=int, default=8, help="images in neighbours.png and grad_cam.png")
    parts.add_argument("--neighbours", type=int, default=8, help="nearest images of each")
    parts.add_argument("--seed", type=int, default=0, help="seed of the choice of these images")
    parts.add_argument("--layer", help="layer that Grad-CAM looks at (layer3); default: the last map")
    parts.add_argument(
        "--baseline", action="append", default=[], metavar="MODEL",
        help="another model, for the spectrum and the index beside the first; `untrained`: fresh weights",
    )  # fmt: skip
    parts.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parts.add_argument("--batch-size", type=int, help="images encoded at a time; default: by their size")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Analyse, write and report."""
    what = _parts(options)
    from fieldmark.backbones import as_encoder
    from fieldmark.cli.evaluate import load_query_data
    from fieldmark.cli.models import choose_device, find_model, image_size, untrained

    device = choose_device(options.device)
    model, facts = find_model(options.model, device)
    data = load_query_data(options, options.size or image_size(model, facts), facts)
    for option, value in (("--queries", options.queries), ("--neighbours", options.neighbours)):
        if not 1 <= value < len(data):
            raise FieldmarkError(f"{option} is {value}; expected 1 to {len(data) - 1}, as there are {len(data)} images")
    models = {options.model: model}
    for text in options.baseline:
        models[text] = (untrained(model, seed=0) if text == "untrained" else find_model(text, device))[0]
    found: dict[str, Any] = {"data": data.manifest.to_dict(), "images": len(data), "models": {}}
    encoders = {name: as_encoder(one, data.manifest.mean, data.manifest.std) for name, one in models.items()}
    pictures = _analyse(encoders, data, what, options, found["models"])
    _write(Path(options.out), pictures, found)
    found["files"] = [str(Path(options.out) / f"{name}.png") for name in pictures]
    if not emit_json(options.json, found):
        _print(found, options, what)
    return 0


def _parts(options: argparse.Namespace) -> list[str]:
    what = [part.strip() for part in options.what.split(",") if part.strip()]
    if not what:
        raise FieldmarkError(f"--what names nothing; expected some of {', '.join(PARTS)}")
    for part in what:
        if part not in PARTS:
            raise unknown_name("part of the analysis", part, PARTS)
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise FieldmarkError(f"--out {options.out} is a file; expected a folder, or a new name")
    return what


def _analyse(
    encoders: dict[str, Any], data: Any, what: list[str], options: argparse.Namespace, found: dict[str, Any]
) -> dict[str, Any]:
    """The numbers of every model go to ``found``; returns the pictures by name."""
    import torch

    from fieldmark.evaluation import analysis, encode

    labels = torch.as_tensor(data.labels).long()
    chosen = analysis.choose_queries(data.labels, options.queries, options.seed)
    pictures: dict[str, Any] = {}
    spectra = {}
    for number, (name, encoder) in enumerate(encoders.items()):
        features = encode(encoder, data, ["pooled"], batch_size=options.batch_size)["pooled"].squeeze(1)
        numbers: dict[str, Any] = {}
        title = f"{name} on {data.manifest.name} {data.manifest.split or ''}".strip()
        if "neighbours" in what and number == 0:
            near = analysis.nearest_neighbours(features, chosen, options.neighbours)
            numbers["neighbours"] = near.to_dict(data.labels)
            pictures["neighbours"] = analysis.neighbours_picture(near, data, title)
        if "grad_cam" in what and number == 0:
            classifier = analysis.fit_classifier(features, data.labels)
            right = float((classifier.logits(features).argmax(1) == labels).double().mean())
            examples = analysis.explain_classifier(encoder, data, classifier, chosen, options.layer)
            lead = f"fitted to all {len(data)} images, it recognises {100 * right:.1f} % of them"
            pictures["grad_cam"] = analysis.grad_cam_picture(examples, lead, title)
            numbers["grad_cam"] = {
                "layer": options.layer,
                "classifier_accuracy": right,
                "images": [{**one, "image": None, "cams": [cam.tolist() for cam in one["cams"]]} for one in examples],
            }
            for one in numbers["grad_cam"]["images"]:
                del one["image"]
        if "spectrum" in what:
            spectra[name] = analysis.spectrum(features)
            numbers["spectrum"] = spectra[name].to_dict()
        if "clusters" in what:
            index = analysis.davies_bouldin(features, labels)
            numbers["clusters"] = index.to_dict(data.class_names)
            if number == 0:
                pictures["clusters"] = analysis.clusters_picture(index, data.class_names, title)
        found[name] = numbers
    if spectra:
        pictures["spectrum"] = analysis.spectrum_picture(spectra)
    return pictures


def _write(folder: Path, pictures: dict[str, Any], found: dict[str, Any]) -> None:
    from fieldmark.explain import save_picture
    from fieldmark.files import write_json
    from fieldmark.progress import track

    for name, figure in track(list(pictures.items()), "drawing"):
        save_picture(figure, folder / f"{name}.png")
    write_json(folder / "analysis.json", found)


def _print(found: dict[str, Any], options: argparse.Namespace, what: list[str]) -> None:
    rows = []
    for name, numbers in found["models"].items():
        row = [name]
        if "spectrum" in what:
            one = numbers["spectrum"]
            row += [f"{one['effective_rank']:.1f} of {one['channels']}", str(one["components_for_80_percent"])]
        if "clusters" in what:
            row.append(f"{numbers['clusters']['davies_bouldin']:.3f}")
        rows.append(row)
    columns = ["model"]
    columns += ["effective rank", "components for 80 % of variance"] if "spectrum" in what else []
    columns += ["Davies-Bouldin index"] if "clusters" in what else []
    manifest = found["data"]
    title = f"{manifest['name']} {manifest.get('split') or ''} ({manifest['size'][0]} px), {found['images']} images"
    if len(columns) > 1:
        print_table(title, columns, rows, right=columns[1:])
    for path in found["files"]:
        print(f"wrote {path}")
