"""Turn an official checkpoint into a fieldmark model file. Nothing in the checkpoint is executed."""

from __future__ import annotations

import argparse
from pathlib import Path

from fieldmark.cli.output import add_json_option, emit_json
from fieldmark.errors import FieldmarkError

EXAMPLE = "fieldmark convert resnet12_last.pth --from scl --out scl_resnet12.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="checkpoint (.pth, .pt or .safetensors)")
    parser.add_argument(
        "--from",
        dest="format",
        required=True,
        metavar="FORMAT",
        help="scl, rfs, deepemd, timm, or fieldmark (with --half)",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="model file to write (.safetensors)")
    parser.add_argument("--backbone", metavar="NAME", help="the timm model's name (needed with --from timm)")
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
    encoder = Encoder(backbone, mean, std, options.size, crop)
    save_model(options.out, encoder, facts, dtype=torch.float16 if options.half else None)
    summary = {"out": options.out, **facts}
    if not emit_json(options.json, summary):
        print(f"{options.out}: {backbone.name} {backbone.options or ''}")
        for key, value in facts.items():
            print(f"  {key}: {value}")
    return 0


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
