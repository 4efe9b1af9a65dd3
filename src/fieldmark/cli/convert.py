"""Turn an official checkpoint into a fieldmark model file. Nothing in the checkpoint is executed."""

from __future__ import annotations

import argparse
from pathlib import Path

from fieldmark.cli.output import add_json_option, emit_json

EXAMPLE = "fieldmark convert resnet12_last.pth --from scl --out scl_resnet12.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="checkpoint (.pth, .pt or .safetensors)")
    parser.add_argument("--from", dest="format", required=True, metavar="FORMAT", help="scl, rfs, deepemd or timm")
    parser.add_argument("--out", required=True, metavar="FILE", help="model file to write (.safetensors)")
    parser.add_argument("--half", action="store_true", help="store the weights as float16")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Convert and say what came out."""
    import torch

    from fieldmark.backbones import Encoder, save_model
    from fieldmark.backbones.convert import convert_checkpoint

    backbone, facts = convert_checkpoint(Path(options.file), options.format)
    encoder = Encoder(backbone, facts.pop("mean", None), facts.pop("std", None), facts.pop("size", None))
    facts["converted_from"] = Path(options.file).name
    save_model(options.out, encoder, facts, dtype=torch.float16 if options.half else None)
    summary = {"backbone": backbone.name, "options": backbone.options, "out": options.out, **facts}
    if not emit_json(options.json, summary):
        print(f"{options.out}: {backbone.name} {backbone.options or ''}")
        for key, value in facts.items():
            print(f"  {key}: {value}")
    return 0
