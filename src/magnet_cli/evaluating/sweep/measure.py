"""Draw, render and score the points of a sweep that share a truncation and a half.

The image of a row is rendered once, and scored by each model once, however many points hold the row.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from magnet_cli import index
from magnet_cli.evaluating import evaluation, shares
from magnet_cli.evaluating.annotate import annotate
from magnet_cli.evaluating.sweep import reference as reference_
from magnet_cli.evaluating.sweep.spec import Point, Pool, Scorers, SweepSpec, draws
from magnet_cli.files import atomic, documents
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import Stages
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import class_shares
from magnet_cli.models import Generator, batches, kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.sampling import image_writer, sample_folder
from magnet_cli.sampling.kinds import SAMPLE
from magnet_cli.sampling.sample_folder import SampleSpec

POINTS, IMAGES = ".points", ".images"  # finished points, and images by row, while a sweep is not finished


@dataclass(frozen=True)
class PointMeasurer:
    """Measures points that share rows and images; `out` is the folder of the sweep."""

    out: Path
    spec: SweepSpec
    generator: Generator
    scorers: Scorers
    reference: ImageSet
    command: list[str]
    batch: int | None
    stages: Stages

    def measure(self, pool: Pool, group: list[Point]) -> Iterator[dict]:
        """Yield points of one truncation and half as sweep.json has them, once safe; finished points are read."""
        by_point = draws(self.spec, pool, group)
        if not all(self._path(point).exists() for point in group):
            self._render(pool, group[0], np.unique(np.concatenate([draw.rows for draw in by_point.values()])))
        scorers = self.scorers.with_memory()
        reference = reference_.part(self.reference, group[0].half)
        for point, draw in by_point.items():
            if not self._path(point).exists():
                fields, scored = self._sample(pool, point, draw), self._score(point, scorers, reference)
                fields["warnings"] += scored.pop("warnings")
                atomic.publish(self._path(point), documents.encode(fields | scored))
            yield documents.read(self._path(point))
        shutil.rmtree(self._images(group[0]), ignore_errors=True)

    def _path(self, point: Point) -> Path:
        return self.out / POINTS / f"{point.name}.json"

    def _images(self, point: Point) -> Path:
        return self.out / IMAGES / f"{point.truncation!r}-{point.half}"

    def _render(self, pool: Pool, point: Point, rows: np.ndarray) -> None:
        atomic.make_folder(self.out / POINTS)
        size = self.batch or batches.batch_size(self.generator)

        def render(part: slice) -> np.ndarray:
            latents, labels = pool.volume.latents(rows[part]), pool.volume.labels(rows[part])
            return batches.arrays(self.generator, latents, point.truncation, size, labels)

        names = [f"rows/{row:09d}.png" for row in rows.tolist()]
        with self.stages(f"rendering at truncation {point.truncation:g}", len(rows), "images") as advance:
            for hashes in image_writer.write(self._images(point), names, size, render, self.generator.image_shape):
                advance(len(hashes))

    def _sample(self, pool: Pool, point: Point, draw: index.Draw) -> dict:
        """Write the sample of a point; return what is known before it is scored."""
        spec = SampleSpec(
            generator=self.spec.generator,
            sha256=self.spec.sha256,
            fingerprint=pool.volume.fingerprint,
            pool=pool.index.num_rows,
            n=self.spec.n,
            rho=point.rho,
            top_k=self.spec.top_k,
            seed=self.spec.seed,
            replace=False,
            truncation=point.truncation,
            label=self.spec.label,
            bn_truncation=0.0 if self.spec.bn_truncation == point.truncation else self.spec.bn_truncation,
            half=point.half,
        )
        folder = self.out / "samples" / point.name
        target = index.target(pool.index, point.rho, pool.volume.spec, draw, point.truncation)
        if not ResultFolder(folder, SAMPLE).finished(spec):
            ResultFolder(folder, SAMPLE).begin(spec)  # a folder with images alone would count as foreign
            atomic.make_folder(folder / "images")
            for row, name in zip(draw.rows.tolist(), sample_folder.file_names(spec.n, self.generator), strict=True):
                atomic.link(self._images(point) / f"rows/{row:09d}.png", folder / name)
            contents = sample_folder.rows_of(spec, draw, pool.volume)
            for _ in sample_folder.write(folder, spec, contents, pool.volume, self.generator, self.batch):
                pass
            report = sample_folder.described(spec, folder) | sample_folder.numbers(spec, draw) | {"target": target}
            sample_folder.finish(folder, spec, contents, pool.volume, self.command, report)
        return {
            **asdict(point),
            "sample": f"samples/{point.name}",
            "n": spec.n,
            "pool": draw.pool,
            **{name: getattr(draw, name) for name in ("effective_size", "displaced_share", "unique_rows", "top_share")},
            "target": target,
            "warnings": index.warnings(draw, point.rho, replace=False),
        }

    def _score(self, point: Point, scorers: Scorers, reference: ImageSet) -> dict:
        """Evaluate the sample of a point, count its classes, and write them into the sample."""
        images = ImageSet.open(self.out / "samples" / point.name)
        result = asdict(evaluation.compare([images], reference, scorers.features, self.spec.nearest_k, self.stages))
        summaries = {}
        for scorer in scorers.classes:
            tally, probabilities = count_classes(images, scorer, self.stages)
            summaries[scorer.name] = asdict(class_shares.summary([tally]))
            annotate(images, scorer, probabilities, summaries[scorer.name])
        names = ("reference_n", "interval", "undefined", "warnings", "metrics")
        return {name: result[name] for name in names} | {"attributes": summaries}


def count_classes(images: ImageSet, scorer: ImageScorer, stages: Stages) -> tuple[class_shares.Tally, np.ndarray]:
    """Return the number of images in each class, and the probabilities [n, C]."""
    with stages(f"{scorer.name} of {images.path.name}", len(images), "images") as advance:
        probabilities = kept_outputs.concatenated(shares.score(images, scorer), advance).values
    return shares.tally(scorer, probabilities), probabilities
