"""Cards of the trained models that come with fieldmark, and their page, docs/models.md: nothing in them is typed.

``python -m fieldmark.evaluation.cards results docs/models.md`` (`make results` runs it). The card of
``results/models/STEM.safetensors`` is ``results/models/cards/STEM.json``. A new one is begun by hand, ``{"name":
"resnet12/scl-cifar_fs"}``; all else is filled in from what the model file says of itself and from the results files
that name the model. A ``"note"`` is kept as well.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldmark.backbones.zoo import CARDS
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.results import load_record
from fieldmark.evaluation.seeds import OverSeeds, over_seeds, training_of
from fieldmark.evaluation.statistics import Estimate, percent
from fieldmark.evaluation.table import scorer_of
from fieldmark.files import read_json, write_beside, write_json

MODELS = "models"
_BY_HAND = ("name", "note")
_HEAD = """# Trained models

These come with fieldmark, in the package itself, and need no network. A name, `ARCHITECTURE/METHOD-DATA`, stands
wherever a backbone's name or a model file may:

```console
$ fieldmark eval conv4/protonet-glyphs --data glyphs --split test --shot 1
$ fieldmark explain A.jpg B.jpg --out f.png --model conv4/scl-cifar_fs
$ fieldmark backbones     # lists them with their cards
```

```python
import fieldmark as fm

backbone = fm.backbones.create("conv4/scl-cifar_fs")  # the network, with its mean, standard deviation and image size
encoder, facts = fm.load_model("conv4/scl-cifar_fs")  # the same as an encoder of plain images, and what is known of it
assert facts["manifest"]["name"] == "cifar_fs"
```

In a recipe, `backbone: {name: conv4/scl-cifar_fs}` starts from the weights, and so does a stage with
`start: conv4/scl-cifar_fs`. Classes that a model was trained on are refused as test classes, of what is trained from it
as well.

These are networks for small images; for photographs take `efficientnet_lite0` or another pre-trained backbone.
The files hold float16 weights. This page is made by `make results` from the files in `results/models` and `results`.
Accuracies are in %, on classes the model never saw, with the half width of the 95% interval over episodes. Each model
is of one training seed, its first; where its recipe was trained with others too, its section says what came out over
seeds. Two models compare where head, episodes and copies are the same.
"""


def make_card(
    model: str | Path, begun: Mapping[str, Any], results: str | Path, tests: Sequence[OverSeeds]
) -> dict[str, Any]:
    """The card of a model file.

    Args:
        model: The file.
        begun: What was written by hand: "name", and "note" if there is something to say.
        results: Folder of the results files, which name the model as the file in their folder ``models`` or by name.
        tests: What :func:`fieldmark.evaluation.seeds.over_seeds` finds there.

    Raises:
        FieldmarkError: If the file was not trained by a recipe, so that it does not say what it was trained on.
    """
    import torch

    from fieldmark import backbones
    from fieldmark.backbones.checkpoint import read_header
    from fieldmark.data import DATASETS

    model = Path(model)
    header = read_header(model)
    known, options = json.loads(header["facts"]), json.loads(header["options"])
    if missing := [key for key in ("recipe", "recipe_yaml", "manifest", "provenance") if key not in known]:
        raise FieldmarkError(f"{model} does not say its {missing[0]}; expected a model that `fieldmark train` wrote")
    manifest, made = known["manifest"], known["provenance"]
    with torch.device("meta"):
        backbone = backbones.create(header["backbone"], **options).eval()
        with torch.no_grad():
            shape = backbone(torch.empty(1, 3, *manifest["size"])).shape[1:]
    return {
        **{key: begun[key] for key in _BY_HAND if key in begun},
        "file": model.name,
        "backbone": header["backbone"],
        "options": options,
        "map": list(shape),
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "bytes": model.stat().st_size,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "data": manifest["name"],
        "split": manifest["split"],
        "classes": manifest["classes"],
        "images": manifest["images"],
        "size": manifest["size"],
        "licence_of_data": DATASETS.get(manifest["name"]).facts["licence"],
        "objectives": _objectives(known["recipe_yaml"]),
        "recipe": known["recipe"],
        "seed": known["seed"],
        "command": made["command"],
        "commit": made["commit"],
        "time": made["time"],
        "hardware": made["hardware"],
        "measured": _measured({f"{MODELS}/{model.name}", begun["name"]}, Path(results)),
        "over_seeds": _over_seeds(known["recipe_yaml"], str(model), tests),
    }


def refresh(results: str | Path) -> list[dict[str, Any]]:
    """Fill in all cards of ``models/cards`` in a folder of results; the cards, by name.

    Raises:
        FieldmarkError: For a card without a name or without a model file.
    """
    made, tests = [], over_seeds(results)
    for path in sorted((Path(results) / MODELS / CARDS).glob("*.json")):
        card = fresh(path, results, tests)
        if card != read_json(path, "card"):
            write_json(path, card)
        made.append(card)
    return sorted(made, key=lambda card: card["name"])


def fresh(path: Path, results: str | Path, tests: Sequence[OverSeeds]) -> dict[str, Any]:
    """What a card should say, made anew; see :func:`make_card`."""
    begun, model = read_json(path, "card"), path.parents[1] / f"{path.stem}.safetensors"
    if not isinstance(begun, dict) or not isinstance(begun.get("name"), str):
        raise FieldmarkError(f"{path} is no card; expected at least {{'name': 'ARCHITECTURE/METHOD-DATA'}}")
    if not model.is_file():
        raise FieldmarkError(f"{path} has no model file; expected {model}")
    return make_card(model, begun, results, tests)


def headlines(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One measured row for each way and shot: the first of the model's own results file, else of the first that is.

    Args:
        card: A whole one.

    Example:
        >>> rows = [{"way": 5, "shot": 1, "file": "b_of_others.json"}, {"way": 5, "shot": 1, "file": "tiny_1shot.json"}]
        >>> [row["file"] for row in headlines({"file": "tiny.safetensors", "measured": rows})]
        ['tiny_1shot.json']
    """
    stem = Path(card["file"]).stem
    first: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in sorted(card["measured"], key=lambda row: not row["file"].startswith(stem)):
        first.setdefault((row["way"], row["shot"]), row)
    return [first[key] for key in sorted(first)]


def accuracy(row: Mapping[str, Any]) -> str:
    """A measured row as "61.10 ± 0.90"."""
    return Estimate.from_dict(row).percent()


def short_commit(commit: str) -> str:
    """Its first digits, and whether the code differed from it.

    Example:
        >>> short_commit("37c8718c6157cf35630167d1fa04066df026278e+changes")
        '37c8718c6157+changes'
    """
    bare, plus, changes = commit.partition("+")
    return bare[:12] + plus + changes


def models_page(cards: Sequence[Mapping[str, Any]]) -> str:
    """docs/models.md from the cards."""
    head = ["name", "trained on", "objectives", "map", "file", "accuracy on new classes", "licence of the data"]
    lines = [
        [
            f"[`{card['name']}`](#{_anchor(card['name'])})",
            f"{card['data']}, {card['classes']} classes, {card['size'][0]} px",
            ", then ".join(card["objectives"]),
            " × ".join(map(str, card["map"])),
            f"{card['bytes'] / 2**20:.2f} MB",
            "<br>".join(f"{row['way']}-way {row['shot']}-shot {accuracy(row)}" for row in headlines(card)),
            card["licence_of_data"],
        ]
        for card in cards
    ]
    return "\n".join([_HEAD, _table(head, lines), "", *map(_section, cards)])


def _section(card: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key} {value}" for key, value in card["options"].items())
    hardware = card["hardware"]
    machine = hardware.get("accelerator") or f"{hardware['processor']}, {hardware['cores']} cores"
    facts = {
        "architecture": f"`{card['backbone']}`{f' ({options})' if options else ''}, {card['parameters']:,} parameters",
        "map": f"{' × '.join(map(str, card['map']))} at {card['size'][0]} px",
        "data": f"{card['data']}, split {card['split']}: {card['images']:,} images of {card['classes']} classes",
        "licence of the data": card["licence_of_data"],
        "recipe": f"`{card['recipe']}` ({', then '.join(card['objectives'])}), seed {card['seed']}",
        "trained": f"{card['time'][:10]}, commit `{short_commit(card['commit'])}`, {machine}",
        "command": f"`{card['command']}`",
        "file": f"`{card['file']}`, {card['bytes'] / 2**20:.2f} MB, SHA-256 `{card['sha256'][:16]}…`",
    }
    listed = "\n".join(f"- {name}: {text}" for name, text in facts.items())
    lines = [[*_cells(row), accuracy(row), f"`results/{row['file']}`"] for row in card["measured"]]
    parts = [f"## {card['name']}", *([card["note"]] if card.get("note") else []), listed]
    parts.append(_table(["data", "episodes", "head", "accuracy", "results file"], lines))
    if card["over_seeds"]:
        parts += ["The same recipe with several seeds; the interval is over seeds (Student):", _seeds_table(card)]
    return "\n\n".join(parts) + "\n"


def _seeds_table(card: Mapping[str, Any]) -> str:
    head = ["data", "episodes", "head", "over seeds", "seeds", "each"]
    lines = [
        [
            *_cells(row),
            Estimate(row["mean"], row["ci95"], len(row["seeds"]), "seeds", "student").percent(),
            ", ".join(map(str, row["seeds"])),
            ", ".join(map(percent, row["means"])),
        ]
        for row in card["over_seeds"]
    ]
    return _table(head, lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    test = f"{row['way']}-way {row['shot']}-shot, {_episodes(row)}"
    return [f"{row['data']} {row['split']}", test, scorer_of(row)]


def _episodes(row: Mapping[str, Any]) -> str:
    runs = f"median of {row['runs']} runs of " if row["runs"] else ""
    copies = f", {row['support_copies']} copies of each support image" if row["support_copies"] else ""
    return f"{runs}{row['count']}{copies}"


def _objectives(recipe: str) -> list[str]:
    import yaml

    return [stage["objective"]["name"] for stage in yaml.safe_load(recipe)["stages"]]


def _measured(called: set[str], results: Path) -> list[dict[str, Any]]:
    """All few-shot rows of this model, with their files."""
    rows = []
    for path in sorted(results.glob("*.json")):
        record = load_record(path)
        for row in record["rows"]:
            text = str(record["models"][row["model"]].get("path", row["model"]))
            if row["task"] != "few-shot" or called.isdisjoint((text, "/".join(Path(text).parts[-2:]))):
                continue
            estimate = {key: row[key] for key in ("mean", "ci95", "over", "interval")}
            rows.append({"file": path.name, **_test(row), **estimate})
    return rows


def _over_seeds(recipe: str, where: str, tests: Sequence[OverSeeds]) -> list[dict[str, Any]]:
    """The few-shot tests of this recipe that there are of several seeds."""
    training, *_ = training_of(recipe, where)
    found = [one for one in tests if one.training == training and len(one.rows) > 1]
    return [
        {
            **_test(one.row), "seeds": list(one.rows), "means": [row["mean"] for row in one.rows.values()],
            "mean": one.over_seeds.mean, "ci95": one.over_seeds.ci95, "files": list(one.files.values()),
        }
        for one in found
        if one.row["task"] == "few-shot"
    ]  # fmt: skip


def _test(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row is of, but for the model."""
    manifest, protocol = row["manifest"], row["protocol"]
    return {
        "data": manifest["name"], "split": manifest["split"], "way": protocol["way"], "shot": protocol["shot"],
        "head": row["head"], "head_options": row.get("head_options", {}),
        "support_copies": row.get("support_copies", 0), "count": row["count"], "runs": len(row.get("runs") or []),
    }  # fmt: skip


def _anchor(name: str) -> str:
    """As the documentation's site makes it from a heading.

    Example:
        >>> _anchor("conv4/scl-cifar_fs")
        'conv4scl-cifar_fs'
    """
    return "".join(c for c in name.lower() if c.isalnum() or c in "_-")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def main(arguments: Sequence[str]) -> int:
    """Fill in the cards, and write the page."""
    if len(arguments) != 2:
        raise FieldmarkError("expected the folder of results and the page: results docs/models.md")
    page = models_page(refresh(arguments[0]))
    write_beside(arguments[1], lambda file: file.write(page.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
