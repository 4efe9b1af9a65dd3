"""Turn an official checkpoint into a fieldmark model file. Nothing in the checkpoint is executed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.cli.output import add_json_option, emit_json
from fieldmark.errors import FieldmarkError

if TYPE_CHECKING:
    from fieldmark.backbones import TrainedClassifier

EXAMPLE = "fieldmark convert resnet12_last.pth --from scl --out scl_resnet12.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="checkpoint (.pth, .pt or .safetensors)")
    parser.add_argument(
        "--from",
        dest="format",
        required=True,
        metavar="FORMAT",
        help="scl, rfs, deepemd, apinet, timm, or fieldmark (with --half)",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="model file to write (.safetensors)")
    parser.add_argument("--backbone", metavar="NAME", help="the timm model's name (needed with --from timm)")
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="names of the classes, a line each, as the data set has them (CUB's classes.txt); with --from apinet",
    )
    parser.add_argument("--mean", metavar="R,G,B", help="mean it was trained with, 0 to 1; default: on miniImageNet")
    parser.add_argument("--std", metavar="R,G,B", help="standard deviation it was trained with")
    parser.add_argument("--size", type=int, help="resize images to this many pixels")
    parser.add_argument(
        "--crop", type=int, help="cut this many pixels out of the middle of larger images; from deepemd: 84 of 92"
    )
    parser.add_argument("--half", action="store_true", help="store the weights as float16")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Convert and say what came out."""
    import torch

    from fieldmark.backbones import Encoder, load_model, save_model
    from fieldmark.backbones.convert import convert_checkpoint

    if options.size is not None and options.size < 1:
        raise FieldmarkError(f"--size is {options.size}; expected a number of pixels of at least 1")
    if options.format == "fieldmark":
        encoder, facts = load_model(options.file)
        save_model(options.out, encoder, facts, dtype=torch.float16 if options.half else None)
        return 0
    mean, std = numbers("--mean", options.mean), numbers("--std", options.std)
    backbone, facts = convert_checkpoint(Path(options.file), options.format, options.backbone)
    mean, std, crop = mean or facts.pop("mean", None), std or facts.pop("std", None), options.crop
    if options.format == "deepemd" and options.size is None and crop is None:
        # As its code evaluates, on CIFAR too: the whole image squashed to 92 pixels, and the middle 84 of them.
        crop, facts["manifest"] = 84, {"size": [92, 92], "fit": "squash"}
    classifier = facts.pop("classifier", None)
    if classifier is not None and options.size is None and crop is None:
        # As its code evaluates: the whole image squashed to 512 pixels, and the middle 448 of them.
        crop, facts["manifest"] = 448, {"size": [512, 512], "fit": "squash"}
    if options.class_names is not None:
        classifier = _named(classifier, options.class_names, options.format)
    encoder = Encoder(backbone, mean, std, options.size, crop, classifier=classifier)
    save_model(options.out, encoder, facts, dtype=torch.float16 if options.half else None)
    summary = {"out": options.out, **facts}
    if not emit_json(options.json, summary):
        print(f"{options.out}: {backbone.name} {backbone.options or ''}")
        for key, value in facts.items():
            print(f"  {key}: {value}")
    return 0


def _named(classifier: TrainedClassifier | None, file: str, format: str) -> TrainedClassifier:
    """The classifier with the class names of a file, which may number its lines."""
    if classifier is None:
        raise FieldmarkError(f"--class-names is for files whose classifier is kept (--from apinet), not for {format}")
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FieldmarkError(f"--class-names {file} cannot be read ({error}); expected a text file") from None
    parts = [line.split(maxsplit=1) for line in lines]
    if all(len(part) == 2 and part[0] == str(number) for number, part in enumerate(parts, 1)):
        lines = [part[1] for part in parts]
    if len(lines) != len(classifier.class_names) or len(set(lines)) != len(lines):
        raise FieldmarkError(
            f"--class-names {file} has {len(set(lines))} different names in {len(lines)} lines; expected "
            f"{len(classifier.class_names)}, in the order of the classifier's rows"
        )
    return replace(classifier, class_names=tuple(lines))


def numbers(option: str, text: str | None) -> list[float] | None:
    """Three numbers from ``R,G,B``.

    Example:
        >>> numbers("--mean", "0.5,0.4,0.3")
        [0.5, 0.4, 0.3]
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise FieldmarkError(f"{option} is {text!r}; expected three numbers such as 0.5,0.5,0.5")
    return values
