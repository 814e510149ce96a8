"""magnet sweep."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options, parsers
from magnet_cli.cli.commands.evaluate import Features, NearestK

if TYPE_CHECKING:
    from magnet_cli.cli import lookup
    from magnet_cli.evaluating.sweep import Pool, SweepSpec

Rhos = Annotated[
    tuple,
    typer.Option(
        "--rho",
        parser=parsers.rhos,
        metavar="RHO,...",
        help="Polarities, as -1,-.3,.3,1; 0, the generator as it is, is always one.",
    ),
]
Truncations = Annotated[
    tuple,
    typer.Option(
        "--truncation",
        parser=parsers.truncations,
        metavar="PSI,...",
        help="ψ in (0, 1], several as 1,.7,.5: every rho at each.",
    ),
]
Images = Annotated[int, typer.Option("--n", min=40, help="Images a point.")]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The folder or sample that points are held against.",
        show_default="fresh draws from the generator's prior: metrics are then drifts from it",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Image model whose classes are counted; repeatable.",
        show_default=False,
    ),
]
Pick = Annotated[
    options.Pick | None,
    typer.Option(
        help="What chooses the best point; gap and total-variation are of the first --model.",
        show_default="fid with --reference, else total-variation with --model, else none",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The folder.", show_default="sweeps/<generator>-n<n>-seed<seed>"),
]


def run(  # noqa: PLR0915
    generator: options.Generator = "mnist",
    rho: Rhos = "-1,-.5,-.2,-.1,.1,.2,.5,1",
    n: Images = 1000,
    truncation: Truncations = "1",
    reference: Reference = None,
    features: Features = None,
    nearest_k: NearestK = 5,
    model: Models = None,
    pick: Pick = None,
    top_k: options.TopK = None,
    bn_truncation: options.BnTruncation = None,
    space: options.Space = options.SpaceName.z,
    output: options.Output = "pixel",
    label: options.Label = None,
    nvae_latents: options.Nvae = None,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    solver: options.AnySolver = None,
    precision: options.AnyPrecision = None,
    seed: options.Seed = 0,
    volume: options.VolumePath = None,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    trust: options.Trust = False,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Measure samples at many rho and choose one.

    At every rho (and at every ψ of --truncation) a sample is drawn from the volume, evaluated against the reference,
    and its classes are counted; all of it is plotted. The best point is picked on one half of the volume's rows and of
    the reference, and reported, beside rho 0, on the other halves: its figures owe nothing to the picking. Images and
    features of a row are made once, however many points have it. Stop at any time: the same command goes on from
    there. Prints the folder: sweep.json, plots/, samples/.

    \b
    Examples:
      magnet sweep --rho -.2,.2 --n 100 --model digits
      magnet sweep mnist --rho .3 --n 100 --truncation 1,.8 --pick recall --out front --json
    """
    from magnet_cli import models
    from magnet_cli.cli import lookup
    from magnet_cli.evaluating import sweep
    from magnet_cli.evaluating.evaluate import default_features
    from magnet_cli.files.image_folder import ImageSet
    from magnet_cli.models import image_models
    from magnet_cli.sampling import render

    start = time.monotonic()
    sweep.check_extras()
    console = console_.Console(as_json=json, quiet=quiet)
    here = device or models.default_device()
    checkpoint = lookup.source(generator, latent_dim=latent_dim, prior=options.plain(prior), image_range=image_range)
    wanted = lookup.Wanted(
        top_k,
        space.value,
        output,
        1.0,
        options.chosen(solver),
        options.chosen(precision),
        label=options.numbers(label),
        nvae_latents=options.plain(nvae_latents) or "top",
    )
    shown = ImageSet.open(reference) if reference else None
    pools = _pools(checkpoint, console, volume, wanted, truncation, bn_truncation)
    options.check_names(label, checkpoint.name, pools[0].volume.spec.num_classes)
    settings = options.settings(bn_truncation, pools[0].volume.spec.nvae_latents or None)
    loaded = models.load(checkpoint, device=here, **dict(settings))
    render.check_format(loaded, "png")
    shape = loaded.image_shape[1:] + loaded.image_shape[:1]
    names = (features or default_features(shape), *dict.fromkeys(model or ()))
    first, *others = (image_models.load_scorer(name, here, trust=trust) for name in names)
    judges = sweep.Judges(first, tuple(others))
    picking = None if pick is None else pick.value.replace("-", "_")
    compared = len(shown) // (1 if picking == "none" else 2) if shown else n
    has_fid = min(n, compared) >= sweep.fewest_for_fid(judges, shape)
    spec = sweep.SweepSpec(
        generator=checkpoint.name,
        sha256=checkpoint.sha256,
        fingerprints=tuple(pool.volume.fingerprint for pool in pools),
        pools=tuple(pool.index.num_rows for pool in pools),
        n=n,
        rho=rho,
        truncation=tuple(pool.truncation for pool in pools),
        top_k=pools[0].index.top_k,
        seed=seed,
        label=wanted.label,
        bn_truncation=bn_truncation or 0.0,
        reference=sweep.sha256(shown),
        features=first.name,
        features_key=first.key,
        nearest_k=nearest_k,
        models=tuple(judge.name for judge in others),
        keys=tuple(judge.key for judge in others),
        pick=sweep.picked_by(picking, judges, given=shown is not None, has_fid=has_fid),
    )
    sweep.check_rows(spec, pools)
    folder = out or sweep.default_out(spec)
    done = None if force else sweep.finished(folder, spec)
    if done and not dry_run:
        console.note(f"{folder} already holds this sweep")
        console.result(done, str(folder))
        return
    report = {"sweep": str(folder), "n": n, "pick": spec.pick or None, "work": sweep.planned(spec, pools)}
    _announce(console, spec, report["work"], folder, None if shown is None else len(shown))
    if dry_run:
        console.note("nothing was done")
        console.result(report | {"seconds": None}, str(folder))
        return
    if force:
        sweep.discard(folder)
    command = ["magnet", *sys.argv[1:]]
    steps = sweep.write(folder, spec, pools, loaded, judges, shown, command, batch_size, console.progress)
    found = _follow(console, spec, steps, folder)
    fields = sweep.concluded(spec, pools, judges, folder, shown, found)
    report["seconds"] = round(time.monotonic() - start, 3)
    sweep.finish(folder, spec, fields, command, report)
    if fields["choice"]:
        _tell_choice(console, spec, fields["choice"])
    console.result(sweep.told(report, fields), str(folder))
    console.hint(f"magnet info {folder} --check")


def _pools(
    checkpoint: "lookup.Source",
    console: console_.Console,
    volume: Path | None,
    wanted: "lookup.Wanted",
    truncations: tuple[float, ...],
    bn_truncation: float | None,
) -> "list[Pool]":
    """The volume and index for each truncation, descending; k is that of the first."""
    from magnet_cli import index
    from magnet_cli.cli import lookup
    from magnet_cli.evaluating import sweep

    pools = []
    for psi in sorted(set(truncations), reverse=True):
        here = dataclasses.replace(wanted, truncation=psi, bn_truncation=options.statistics(bn_truncation, psi))
        found = lookup.volume_for_rendering(checkpoint, console, volume, here)
        built, _ = lookup.index_of(found, wanted.top_k, console)
        wanted = dataclasses.replace(wanted, top_k=built.top_k)
        pools.append(sweep.Pool(psi, found, index.of_labels(built, found, wanted.label)))
    return pools


def _follow(console: console_.Console, spec: "SweepSpec", steps: Iterator[dict], folder: Path) -> list[dict]:
    """Run a sweep, point by point; after Ctrl-C say what is safe."""
    found = []
    try:
        with contextlib.closing(steps):
            for point in steps:
                found.append(point)
                _tell(console, spec, point)
    except KeyboardInterrupt:
        safe = f"{len(found)} of {len(spec.rho) * len(spec.truncation)} points are whole in {folder}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
    return found


def _announce(
    console: console_.Console, spec: "SweepSpec", work: list[dict], folder: Path, reference: int | None
) -> None:
    """The work, before it is done."""
    console.note(f"{len(spec.rho) * len(work)} points of {spec.n:,} images, into {folder}:")
    for part in work:
        made = f"{part['rendered']:,} different ones of {part['images']:,} are rendered"
        console.note(f"  at truncation {part['truncation']:g}: {made}")
    if spec.pick:
        console.note(f"  the best {spec.pick} is picked on half of the rows; up to {2 * spec.n:,} more report it")
    of_prior = f"{spec.n * (2 if spec.pick else 1):,} fresh draws from the prior (metrics are drifts from it)"
    console.note(f"  held against {of_prior if reference is None else f'{reference:,} images'}, by {spec.features}")


def _tell(console: console_.Console, spec: "SweepSpec", point: dict) -> None:
    """One point, in words."""
    where = f"rho {point['rho']:g}" + f", truncation {point['truncation']:g}" * (len(spec.truncation) > 1)
    where += ", the other half" * (point["half"] == 2)
    said = [f"effective size {point['effective_size']:,.0f}", f"displaced {point['displaced_share']:.3f}"]
    shown = [name for name in point["metrics"] if name.startswith(("fid", "precision", "recall"))]
    said += [f"{name} {point['metrics'][name]['value']:.4g}" for name in shown]
    said += [f"{name} gap {each['gap']['value']:.3f}" for name, each in point["attributes"].items()]
    console.note(f"{where}: {', '.join(said)}")
    for warning in point["warnings"]:
        console.warning(f"{where}: {warning}")


def _tell_choice(console: console_.Console, spec: "SweepSpec", choice: dict) -> None:
    """The choice and what it is worth, in words."""
    from magnet_cli.evaluating import sweep

    def said(point: dict) -> str:
        return "{value:.4g} ({low:.4g} to {high:.4g})".format(**sweep.estimate(point, spec.pick))

    where = f"rho {choice['rho']:g}" + f", truncation {choice['truncation']:g}" * (len(spec.truncation) > 1)
    chosen, baseline = said(choice["chosen"]), said(choice["baseline"])
    console.note(f"picked: {where}; on the other half {spec.pick} is {chosen}, at rho 0 {baseline}")
