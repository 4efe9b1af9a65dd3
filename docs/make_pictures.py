"""Makes the pictures of README and documentation from real output: ``python docs/make_pictures.py demo/report.html``.

Needs Chromium or Chrome on the path; run ``fieldmark demo`` first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

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
    """Take a picture of the top of a page, cut off what is empty, and write it with a palette."""
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
    target.parent.mkdir(parents=True, exist_ok=True)
    image.crop(box).quantize(128).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    report = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/report.html")
    if not report.is_file():
        sys.exit(f"make_pictures: no report at {report}; run `fieldmark demo` first")
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.html"
        part.write_text(excerpt(report.read_text(encoding="utf-8")), encoding="utf-8")
        screenshot(part, IMAGES / "demo_report.png", 1200, 1400)
