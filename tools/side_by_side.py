"""Put samples side by side in one picture, each under its rho, effective size and displaced share.

    python tools/side_by_side.py samples/modes samples/generator samples/anti-modes --out samples/demo.png

Every image of every sample is shown, in the order of the draw. The captions come from each `sample.json`.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from magnet_cli.files.contact_sheet import contact_sheet

GAP = 16  # pixels between panels


def panel(sample: Path, columns: int) -> Image.Image:
    """Draw all images of a sample in `columns` columns, under a caption."""
    report = json.loads((sample / "sample.json").read_text(encoding="utf-8"))["report"]
    caption = (
        f"rho {report['rho']:g}: effective size {report['effective_size']:,.0f}, "
        f"displaced share {report['displaced_share']:.2f}"
    )
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((sample / "images").iterdir())]
    return Image.open(io.BytesIO(contact_sheet([(caption, images)], columns)))


def side_by_side(panels: list[Image.Image]) -> Image.Image:
    """Join panels from left to right, on white."""
    width = sum(image.width for image in panels) + GAP * (len(panels) - 1)
    page = Image.new("RGB", (width, max(image.height for image in panels)), "white")
    left = 0
    for image in panels:
        page.paste(image, (left, 0))
        left += image.width + GAP
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path, metavar="SAMPLE")
    parser.add_argument("--columns", type=int, default=6, help="images in a row of a panel")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    side_by_side([panel(sample, arguments.columns) for sample in arguments.samples]).save(arguments.out)
