"""The reference of a sweep: images that are passed, or new draws from the generator's prior, in two halves."""

import dataclasses
from pathlib import Path

import numpy as np

from magnet_cli.evaluating.sweep.spec import SweepSpec, halves
from magnet_cli.files import documents, pictures
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import Stages
from magnet_cli.files.results import ResultFolder
from magnet_cli.models import Generator
from magnet_cli.sampling import render
from magnet_cli.sampling.kinds import RENDERING

FOLDER = "reference"
_STREAM = 0x7377656570  # random stream of the draws
_HALVES = 0x68616C76  # random stream that deals images to halves


def sha256(reference: ImageSet | None) -> str:
    """Return hex sha256 of the reference's images, whatever their file names; "" without a reference."""
    if reference is None:
        return ""
    return documents.sha256_bytes(documents.canonical({"files": reference.hashes(0, len(reference))}))


def part(reference: ImageSet, half: int) -> ImageSet:
    """Return the images that points of a half are compared with, a function of the number of images alone."""
    if not half:
        return reference
    order = np.random.default_rng(_HALVES).permutation(len(reference))
    size = len(reference) // 2
    places = np.sort(order[(half - 1) * size : half * size])
    return dataclasses.replace(reference, files=tuple(reference.files[i] for i in places))


def prior(
    out: Path, spec: SweepSpec, generator: Generator, command: list[str], batch: int | None, stages: Stages
) -> ImageSet:
    """Render new draws from the prior without truncation: as many for each half as a point has images."""
    n = spec.n * len(halves(spec))
    rng = np.random.default_rng([_STREAM, spec.seed])
    latents, labels = generator.prior.draw(n, rng, spec.label)
    rendering = render.RenderSpec(
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
    if not ResultFolder(out / FOLDER, RENDERING).finished(rendering):
        with stages("rendering the reference", n, "images") as advance:
            for images in render.fill(out / FOLDER, rendering, generator, latents, labels, batch):
                advance(images)
        render.finish(out / FOLDER, rendering, command, {"out": str(out / FOLDER), "n": n})
    return ImageSet.open(out / FOLDER)
