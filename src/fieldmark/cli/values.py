"""What the texts of options say: names, numbers, and ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fieldmark.errors import FieldmarkError, unknown_name


def parse_options(option: str, texts: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a dictionary, with values read as YAML.

    Example:
        >>> parse_options("--head-option", ["metric=cosine", "k=3"])
        {'metric': 'cosine', 'k': 3}
    """
    from fieldmark.training.typed import parse_yaml

    out = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise FieldmarkError(f"{option} {text!r}; expected KEY=VALUE")
        out[key] = parse_yaml(value, f"{option} {text!r}")
    return out


def published_figures(texts: list[str]) -> list[dict[str, Any]]:
    """Published accuracies, each for one head or for all.

    Example:
        >>> published_figures(["logistic:SCL Conv-4=60.31"])
        [{'label': 'SCL Conv-4', 'mean': 0.6031, 'head': 'logistic'}]
    """
    figures = []
    for key, value in parse_options("--published", texts).items():
        head, colon, label = key.rpartition(":")
        if not isinstance(value, int | float) or not 0 <= value <= 100:
            raise FieldmarkError(f"--published {key}={value}; expected a number from 0 to 100")
        figures.append({"label": label, "mean": round(value / 100, 6), "head": head if colon else None})
    return figures


def heads_in(text: str) -> dict[str, str]:
    """The heads of ``NAME[,NAME...]`` by what they go by: the name, or the label of ``LABEL=NAME``.

    Example:
        >>> heads_in("prototype,global=logistic,both=logistic")
        {'prototype': 'prototype', 'global': 'logistic', 'both': 'logistic'}
    """
    heads: dict[str, str] = {}
    for one in names_in("--head", text):
        label, sign, name = (part.strip() for part in one.rpartition("="))
        if sign and not (label and name):
            raise FieldmarkError(f"--head {one!r}; expected NAME, or LABEL=NAME")
        if (label or name) in heads:
            raise FieldmarkError(
                f"--head names {label or name!r} twice; give a label to each, --head a={name},b={name}, and options by "
                "it, --head-option a.KEY=VALUE"
            )
        heads[label or name] = name
    return heads


def options_by_head(labels: Iterable[str], texts: list[str]) -> dict[str, dict[str, Any]]:
    """The options of each head: ``KEY=VALUE`` is for all of them, ``HEAD.KEY=VALUE`` for the one that goes by HEAD.

    Example:
        >>> options_by_head(["prototype", "logistic"], ["logistic.C=10"])
        {'prototype': {}, 'logistic': {'C': 10}}
    """
    out: dict[str, dict[str, Any]] = {label: {} for label in labels}
    for key, value in parse_options("--head-option", texts).items():
        head, dot, option = key.rpartition(".")
        if dot and head not in out:
            raise unknown_name("head in --head-option", head, out)
        for label in [head] if dot else out:
            out[label][option] = value
    return out


def names_in(option: str, text: str) -> list[str]:
    """The names of a list with commas; one at least.

    Example:
        >>> names_in("--head", "prototype, emd")
        ['prototype', 'emd']
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise FieldmarkError(f"{option} is {text!r}; expected a name, or several with commas between them")
    return names


def count_or_all(option: str, text: str) -> int | None:
    """A positive number, or None for ``all``."""
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise FieldmarkError(f"{option} is {text!r}; expected a number or `all`") from None
