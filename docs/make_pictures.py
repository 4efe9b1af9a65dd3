"""Makes the pictures of README and documentation from real output: ``python docs/make_pictures.py demo/report.html``.

The report's needs Chromium or Chrome on the path; run ``fieldmark demo`` first. Those of ``fieldmark explain`` need the
extra ``offline``; ``python docs/make_pictures.py explain`` makes these alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw

IMAGES = Path(__file__).resolve().parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MARGIN = 24


def excerpt(report: str) -> str:
    """The report's title, first table and chart, and the last of its example episodes."""
    style = report[: report.index("<body>")].replace("max-width: 60rem", "max-width: 72rem")
    title = report[report.index("<h1>") : report.index("</h1>") + 5]
    tables = report[report.index("<h3>") : report.index("<h3>", report.index("<h3>") + 1)]
    episodes = report[report.index("<h2>Example episodes") : report.rindex("</section>")]
    legend = episodes[episodes.index("<p class='quiet'>") : episodes.index("</p>") + 4]
    return f"{style}<body>{title}{tables}{legend}{episodes[episodes.rindex('<p>Episode') :]}</body></html>"


def screenshot(page: Path, target: Path, width: int, height: int) -> None:
    """Take a picture of the top of a page, cut off what is empty, and write it with few colours."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"make_pictures: no browser found; expected one of {', '.join(BROWSERS)} on the path")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "page.png"
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                "--hide-scrollbars", f"--window-size={width},{height}", f"--screenshot={raw}", page.resolve().as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        image = Image.open(raw).convert("RGB")
    left, top, right, bottom = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    box = (max(left - MARGIN, 0), max(top - MARGIN, 0), min(right + MARGIN, width), min(bottom + MARGIN, height))
    save(image.crop(box).quantize(128), target)


def save(image: Image.Image, target: Path) -> None:
    """Write a picture of few colours without loss."""
    target.parent.mkdir(parents=True, exist_ok=True)
    image.convert("RGB").save(target, lossless=True, quality=100, method=6)
    print(f"{target}: {target.stat().st_size / 1024:.0f} kB")


def scene(house: tuple[float, float], tree: tuple[float, float], sun: float, sky: str, ground: str) -> Image.Image:
    """A drawn house, tree and sun: each at its place across (0 to 1), house and tree with a size as well."""
    side = 896  # drawn large and scaled down, for smooth edges
    image = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(image)
    floor = 0.74 * side
    draw.rectangle((0, floor, side, side), fill=ground)
    x, radius = sun * side, 0.075 * side
    draw.ellipse((x - radius, 0.14 * side - radius, x + radius, 0.14 * side + radius), fill="#ffd84a")
    x, unit = tree[0] * side, tree[1] * side
    draw.rectangle((x - 0.05 * unit, floor - 0.5 * unit, x + 0.05 * unit, floor + 0.06 * unit), fill="#6b4226")
    for dx, dy, r in ((-0.18, 0.55, 0.22), (0.18, 0.57, 0.22), (0, 0.8, 0.25), (0, 0.55, 0.2)):
        place = (x + dx * unit, floor - dy * unit)
        draw.ellipse((place[0] - r * unit, place[1] - r * unit, place[0] + r * unit, place[1] + r * unit), "#2f7d3b")
    x, unit = house[0] * side, house[1] * side
    top, base = floor - 0.55 * unit, floor + 0.08 * unit
    draw.rectangle((x - 0.4 * unit, top, x + 0.4 * unit, base), fill="#f4ead5", outline="#8a7a5c", width=6)
    draw.polygon([(x - 0.5 * unit, top), (x, top - 0.42 * unit), (x + 0.5 * unit, top)], fill="#b5442e")
    draw.rectangle((x - 0.1 * unit, base - 0.36 * unit, x + 0.1 * unit, base), fill="#6d4a2f")
    for left in (-0.33, 0.17):
        window = (x + left * unit, top + 0.1 * unit, x + (left + 0.16) * unit, top + 0.28 * unit)
        draw.rectangle(window, fill="#9fd0f0", outline="#5b5b5b", width=6)
    return image.resize((224, 224), Image.Resampling.LANCZOS)


def explanations(target: Path) -> None:
    """What ``fieldmark explain`` makes of two drawn scenes: the matches, all flows, and the spatial alignment."""
    from fieldmark import backbones, explain

    query = scene((0.32, 0.56), (0.8, 0.42), 0.82, "#a9d7f5", "#8cc26a")
    support = scene((0.7, 0.5), (0.22, 0.52), 0.42, "#cfe0ea", "#b9a46a")
    model = backbones.create("efficientnet_lite0")
    found, aligned = explain.match(model, query, support), explain.align(model, query, support, heat="norm")
    pictures = {
        "explain_matches": explain.picture(found, ("overlay", "reconstruction")),
        "explain_flows": explain.picture(found, ("flows",)),
        "explain_alignment": explain.alignment_picture(aligned),
    }
    for name, figure in pictures.items():
        with tempfile.TemporaryDirectory() as folder:
            raw = explain.save_picture(figure, Path(folder) / "picture.png", dpi=90)
            image = Image.open(raw).convert("RGB").quantize(256)
        save(image, target / f"{name}.webp")


if __name__ == "__main__":
    explanations(IMAGES)
    if sys.argv[1:] == ["explain"]:
        sys.exit()
    report = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/report.html")
    if not report.is_file():
        sys.exit(f"make_pictures: no report at {report}; run `fieldmark demo` first")
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.html"
        part.write_text(excerpt(report.read_text(encoding="utf-8")), encoding="utf-8")
        screenshot(part, IMAGES / "demo_report.webp", 1200, 1400)
