"""What the points of a sweep are held against: images that were given, or fresh draws from the generator's prior.

Owns which of them belong to which half, and the rendering of the draws.
"""

import dataclasses
from pathlib import Path

import numpy as np

from magnet_cli.evaluating.evaluate import Progress
from magnet_cli.evaluating.sweep.spec import SweepSpec, halves
from magnet_cli.files import documents, pictures
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.models import Generator
from magnet_cli.sampling import render

FOLDER = "reference"
_STREAM = 0x7377656570  # keeps the draws' random stream apart from all others
_HALVES = 0x68616C76  # and that which deals images to halves


def sha256(reference: ImageSet | None) -> str:
    """Of a reference, whatever its files are called; empty where there is none."""
    return (
        documents.sha256_bytes(documents.canonical({"files": reference.hashes(0, len(reference))})) if reference else ""
    )


def part(reference: ImageSet, half: int) -> ImageSet:
    """The images of a reference that points of a half are held against: which, is a function of their number alone."""
    if not half:
        return reference
    order = np.random.default_rng(_HALVES).permutation(len(reference))
    size = len(reference) // 2
    places = np.sort(order[(half - 1) * size : half * size])
    return dataclasses.replace(reference, files=tuple(reference.files[i] for i in places))


def prior(
    out: Path, spec: SweepSpec, generator: Generator, command: list[str], batch: int | None, progress: Progress
) -> ImageSet:
    """Fresh draws from the prior, rendered untruncated: as many for each half as a point has images."""
    n = spec.n * len(halves(spec))
    rng = np.random.default_rng([_STREAM, spec.seed])
    latents, labels = generator.prior.draw(n, rng, spec.label)
    about = render.RenderSpec(
        spec.generator,
        spec.sha256,
        documents.sha256_bytes(pictures.npy(latents)),
        "" if labels is None else documents.sha256_bytes(pictures.npy(labels)),
        n=n,
        space="z",
        truncation=1.0,
        bn_truncation=spec.bn_truncation,
        nvae_latents=generator.nvae_latents or "top",
        image_range=generator.image_range,
    )
    if not render.finished(out / FOLDER, about):
        with progress("rendering the reference", n, "images") as advance:
            for images in render.fill(out / FOLDER, about, generator, latents, labels, batch):
                advance(images)
        render.finish(out / FOLDER, about, command, {"out": str(out / FOLDER), "n": n})
    return ImageSet.open(out / FOLDER)
