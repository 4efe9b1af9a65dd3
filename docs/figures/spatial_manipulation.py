"""Draw docs/images/spatial_manipulation.png: what SSM learns on maps whose parts are shifted, on maps it has not seen.

Command: python docs/figures/spatial_manipulation.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from torch.nn import functional as F

from fieldmark.alignment import SpatialManipulation

SIDE, CHANNELS, STEPS, SHOWN = 10, 8, 250, 3
TARGET = Path(__file__).parents[1] / "images" / "spatial_manipulation.png"


def shifted(images: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth random maps seen through a window, and through it moved by half a place to two; the shifts in places."""
    coarse = torch.randn(images, CHANNELS, 6, 6, generator=generator)
    scene = F.interpolate(coarse, (SIDE + 8, SIDE + 8), mode="bicubic", align_corners=True)
    angle = 2 * torch.pi * torch.rand(images, generator=generator)
    length = 0.5 + 1.5 * torch.rand(images, generator=generator)
    shift = torch.stack([angle.cos(), angle.sin()], dim=1) * length.unsqueeze(1)
    places = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), dim=-1) + 4.0
    grids = (places + by.view(-1, 1, 1, 2) for by in (torch.zeros_like(shift), shift))
    support, query = (F.grid_sample(scene, grid * 2 / (SIDE + 7) - 1, align_corners=True) for grid in grids)
    return support, query, shift


def trained(generator: torch.Generator) -> SpatialManipulation:
    """A module that has learned, from the distance alone, to move supports onto their queries."""
    torch.manual_seed(0)
    module = SpatialManipulation(CHANNELS, padding="border", hidden=32)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for _ in range(STEPS):
        support, query, _ = shifted(32, generator)
        optimizer.zero_grad()
        (module(support, query) - query).square().mean().backward()
        optimizer.step()
        schedule.step()
    return module.eval()


def main() -> None:
    """Train, measure on new maps, draw the first of them."""
    generator = torch.Generator().manual_seed(1)
    module = trained(generator)
    support, query, shift = shifted(64, generator)
    inner = slice(2, -2)  # what has left the map cannot be found
    with torch.no_grad():
        moved, offsets = module(support, query), module.offsets(support, query) * (SIDE - 1) / 2
    error = (offsets - shift[..., None, None]).norm(dim=1)[:, inner, inner].mean()
    before, after = ((one - query).square()[..., inner, inner].mean() for one in (support, moved))
    figure, axes = plt.subplots(SHOWN, 4, figsize=(9, 7.4), layout="constrained")
    titles = "query", "support", "support after SSM,\nand where each place looked", "distance before (left) and after"
    for row, line in enumerate(axes):
        low, high = query[row, 0].min().item(), query[row, 0].max().item()
        for axis, one in zip(line, (query, support, moved), strict=False):
            axis.imshow(one[row, 0], cmap="viridis", vmin=low, vmax=high)
        x, y = offsets[row]
        columns, rows = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy")
        line[2].quiver(columns, rows, x, y, angles="xy", scale_units="xy", scale=1, color="white", width=0.006)
        far = [(one[row] - query[row]).square().mean(0) for one in (support, moved)]
        line[3].imshow(torch.cat([far[0], torch.full((SIDE, 1), torch.nan), far[1]], dim=1), cmap="magma", vmin=0)
        for axis, title in zip(line, titles, strict=True):
            axis.set(xticks=[], yticks=[], frame_on=False)
            if row == 0:
                axis.set_title(title, fontsize=9)
    figure.suptitle(
        f"New maps, shifted by half a place to two: mean error of the offsets {error:.2f} places,\n"
        f"{1 - after / before:.0%} of the distance gone (away from the border; one of {CHANNELS} channels shown)",
        fontsize=11,
    )
    figure.savefig(TARGET, dpi=110)
    with Image.open(TARGET) as file:
        image = file.convert("RGB").quantize(128)
    image.save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
