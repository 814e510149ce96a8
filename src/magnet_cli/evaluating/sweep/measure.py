"""Draw, render and judge the points of a sweep that share a truncation and a half.

Owns the sharing: the image of a row is rendered once and seen by each model once, however many points have it. The
caller owns the order of points.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from magnet_cli import index
from magnet_cli.evaluating import attributes, evaluate
from magnet_cli.evaluating.evaluate import Progress
from magnet_cli.evaluating.sweep import reference as reference_
from magnet_cli.evaluating.sweep.spec import Judges, Point, Pool, SweepSpec, draws
from magnet_cli.files import atomic, documents
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import class_shares
from magnet_cli.models import Generator, kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.sampling import render, sample_folder
from magnet_cli.sampling.kinds import SAMPLE
from magnet_cli.sampling.sample_folder import SampleSpec

POINTS, IMAGES = ".points", ".images"  # what is done, and images by row, while a sweep is not finished


@dataclass(frozen=True)
class Work:
    """Measures points, on rows and images that they share; the fields are the arguments of `sweep.write`."""

    out: Path
    spec: SweepSpec
    generator: Generator
    judges: Judges
    reference: ImageSet
    command: list[str]
    batch: int | None
    progress: Progress

    def measured(self, pool: Pool, group: list[Point]) -> Iterator[dict]:
        """Points of one truncation and half, each yielded once it is safe; what is there is taken over."""
        drawn_rows = draws(self.spec, pool, group)
        if not all(self._path(point).exists() for point in group):
            self._render(pool, group[0], np.unique(np.concatenate([drawn.rows for drawn in drawn_rows.values()])))
        judges = self.judges.remembering()
        reference = reference_.part(self.reference, group[0].half)
        for point, drawn in drawn_rows.items():
            if not self._path(point).exists():
                fields, judged = self._sampled(pool, point, drawn), self._judged(point, judges, reference)
                fields["warnings"] += judged.pop("warnings")
                atomic.publish(self._path(point), documents.encode(fields | judged))
            yield documents.read(self._path(point))
        shutil.rmtree(self._images(group[0]), ignore_errors=True)

    def _path(self, point: Point) -> Path:
        return self.out / POINTS / f"{point.name}.json"

    def _images(self, point: Point) -> Path:
        return self.out / IMAGES / f"{point.truncation!r}-{point.half}"

    def _render(self, pool: Pool, point: Point, rows: np.ndarray) -> None:
        """The images of all rows that points of a group have, each once."""
        atomic.make_folder(self.out / POINTS)
        size = self.batch or render.batch_size(self.generator)

        def made(places: slice) -> np.ndarray:
            here = rows[places]
            latents, labels = pool.volume.latents(here), pool.volume.labels(here)
            return render.arrays(self.generator, latents, point.truncation, size, labels)

        names = [f"rows/{row:09d}.png" for row in rows.tolist()]
        with self.progress(f"rendering at truncation {point.truncation:g}", len(rows), "images") as advance:
            for hashes in render.write(self._images(point), names, size, made, self.generator.image_shape):
                advance(len(hashes))

    def _sampled(self, pool: Pool, point: Point, drawn: index.Draw) -> dict:
        """Write the sample of a point; what is known of it before anybody looks."""
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
        target = index.target(pool.index, point.rho, pool.volume.spec, drawn, point.truncation)
        if not sample_folder.finished(folder, spec):
            ResultFolder(folder, SAMPLE).begin(spec)  # else what is linked would be somebody's files
            atomic.make_folder(folder / "images")
            for row, name in zip(drawn.rows.tolist(), sample_folder.file_names(spec, self.generator), strict=True):
                atomic.link(self._images(point) / f"rows/{row:09d}.png", folder / name)
            contents = sample_folder.rows_of(spec, drawn, pool.volume)
            for _ in sample_folder.write(folder, spec, contents, pool.volume, self.generator, self.batch):
                pass
            report = sample_folder.described(spec, folder) | sample_folder.numbers(spec, drawn) | {"target": target}
            sample_folder.finish(folder, spec, contents, pool.volume, self.command, report)
        fields = asdict(point) | {"sample": f"samples/{point.name}", "n": spec.n}
        names = ("pool", "effective_size", "displaced_share", "unique_rows", "top_share")
        fields |= {name: getattr(drawn, name) for name in names}
        return fields | {"target": target, "warnings": index.warnings(drawn, point.rho, replace=False)}

    def _judged(self, point: Point, judges: Judges, reference: ImageSet) -> dict:
        """What the judges say of a point's sample, whose classes are written into it."""
        shown = ImageSet.open(self.out / "samples" / point.name)
        found = evaluate.evaluate([shown], reference, judges.features, self.spec.nearest_k, self.progress)
        fields = {name: found[name] for name in ("reference_n", "interval", "undefined", "warnings")}
        fields |= {"metrics": {name: asdict(each) for name, each in found["metrics"].items()}, "attributes": {}}
        for judge in judges.models:
            counted, probabilities = tally(shown, judge, self.progress)
            summary = fields["attributes"][judge.name] = asdict(class_shares.summary([counted]))
            attributes.annotate(shown, judge, probabilities, summary)
        return fields


def tally(shown: ImageSet, judge: ImageScorer, progress: Progress) -> tuple[class_shares.Tally, np.ndarray]:
    """How many images fell into each class, and the probabilities [n, C]."""
    with progress(f"{judge.name} of {shown.path.name}", len(shown), "images") as advance:
        probabilities = kept_outputs.concatenated(attributes.look(shown, judge), advance).values
    return attributes.tally(judge, probabilities), probabilities
