"""magnet train."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options, parsers
from magnet_cli.cli.help import Command, Group

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train a generator with a mixture as its prior (SLOGAN).",
)


Data = Annotated[
    str,
    typer.Option(metavar="DATA", help="A folder of images, an npz file of images or points, or synthetic."),
]
Components = Annotated[int, typer.Option(min=2, help="K, of the mixture.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Of training.", show_default="4000 for points, 2000 for images")]
Probe = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A few samples of each component with their labels, an npz file."),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The run's folder.", show_default="runs/slogan-<data>-k<K>-seed<seed>"),
]
LatentDim = Annotated[int, typer.Option(min=2, help="D, numbers of a latent.")]
Batch = Annotated[
    int | None, typer.Option(min=2, help="Draws and data a step.", show_default="128 for points, 32 for images")
]
Width = Annotated[int, typer.Option(min=1, help="Of images: channels at half of the side, doubled with each halving.")]
Rate = Annotated[
    float | None,
    typer.Option(
        callback=parsers.positive,
        help="Adam's, of generator and encoder; twice that of the critic.",
        show_default="0.002 for points, 0.001 for images",
    ),
]
PriorRate = Annotated[
    float | None,
    typer.Option(
        callback=parsers.positive,
        help="Of the mixture's weights and covariances; means: 10 times.",
        show_default="0.02 for points, 0.03 for images",
    ),
]
Contrast = Annotated[float, typer.Option(callback=parsers.positive, help="Weight of the contrastive loss at first.")]
Penalty = Annotated[
    float | None,
    typer.Option(
        callback=parsers.positive,
        help="Weight of the critic's slope at data (R1).",
        show_default="0.02 for points, 1 for images",
    ),
]
Explicit = Annotated[
    bool, typer.Option("--explicit", help="Ablation: the prior by explicit reparameterisation, not by Stein's lemma.")
]
NoContrastive = Annotated[
    bool, typer.Option("--no-contrastive", help="Ablation: generator and prior do without the contrastive loss.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Only go on with a run that is there; never begin one.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; rounding depends on them.")]


@app.callback()
def main() -> None:
    """Train a generator."""


@app.command("slogan", cls=Command)
def slogan(
    data: Data,
    components: Components,
    steps: Steps = None,
    probe: Probe = None,
    latent_dim: LatentDim = 16,
    batch: Batch = None,
    seed: options.Seed = 0,
    width: Width = 16,
    rate: Rate = None,
    prior_rate: PriorRate = None,
    contrast: Contrast = 4.0,
    penalty: Penalty = None,
    explicit: Explicit = False,
    no_contrastive: NoContrastive = False,
    resume: Resume = False,
    out: Out = None,
    device: options.Device = None,
    threads: Threads = 1,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Train a GAN and the Gaussian mixture that is its prior.

    SLOGAN (Hwang et al., ICLR 2022). Means, covariances and weights of K components are learned beside the networks,
    by Stein's lemma, so that each component becomes one attribute and its weight that attribute's share of the data.
    Labels are not needed; where they are known (folders of classes, labels in the npz file) they judge and do not
    teach. The folder holds a generator like any other, whose labels are the components, in a safetensors file named
    like it, log.jsonl, and grids/. Stop or kill it at any time: the same command goes on from there, to the same
    weights. Prints the folder.

    \b
    Examples:
      magnet train slogan --data synthetic --components 8 --steps 40 --out rings
      magnet train slogan --data synthetic --components 8 --steps 40 --out plain --no-contrastive --json
    """
    from magnet_cli import models
    from magnet_cli.training.slogan import data as data_
    from magnet_cli.training.slogan import run as run_
    from magnet_cli.training.slogan import train
    from magnet_cli.training.slogan.trainer import Recipe

    console = console_.Console(as_json=json, quiet=quiet)
    place = device or models.default_device()
    models.check_device(place)
    loaded = data_.load(data)
    labelled = None if probe is None else data_.load_probe(probe, loaded, components)
    points = loaded.values.ndim == 2
    recipe = Recipe(
        components=components,
        latent_dim=latent_dim,
        steps=steps or (4_000 if points else 2_000),
        batch=batch or (128 if points else 32),
        seed=seed,
        width=width,
        rate=rate or (2e-3 if points else 1e-3),
        prior_rate=prior_rate or (0.02 if points else 0.03),
        wait=0.0 if points else 0.1,
        contrast=contrast,
        penalty=penalty or (0.02 if points else 1.0),
        penalty_every=2 if points else 4,
        explicit=explicit,
        no_contrastive=no_contrastive,
    )
    spec = run_.RunSpec.of(loaded, labelled, recipe)
    run = run_.Run(out or Path("runs") / f"slogan-{Path(data).stem}-k{components}-seed{seed}")
    if force and not dry_run:
        run.discard()
    begun = run.begun(spec)
    if begun and (done := run.report()):
        console.note(f"{run.path} already holds this run, finished")
        console.result(done, str(run.path))
        return
    if resume and not begun:
        from magnet_cli.errors import SampleError

        message = f"a run in {run.path} is to be gone on with, and there is none"
        raise SampleError(message, "leave --resume out, and it is begun")
    if dry_run:
        console.note(f"{recipe.steps:,} steps would be trained in {run.path}; nothing was done")
        console.result({"run": str(run.path), "steps": recipe.steps, "begun": begun}, str(run.path))
        return
    last = {"step": 0}
    try:
        with console.progress("training slogan", recipe.steps, "steps") as advance:
            for line in train.train(run, spec, loaded, labelled, place, threads):
                advance(line["step"] - last["step"])
                last = line
    except KeyboardInterrupt:
        safe = f"{last['step']:,} of {recipe.steps:,} steps are safe in {run.path}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
    report = train.report(run, spec, last)
    run.finish(spec, report)
    console.note("weights: " + " ".join(f"{weight:.3f}" for weight in report["weights"]))
    if "nmi" in report:
        error = report["weight_error"]
        text = f"nmi {report['nmi']:.3f}, ari {report['ari']:.3f}, purity {report['purity']:.3f}; "
        console.note(text + f"weights are {error['mean']:.3f} from the truth, at worst {error['worst']:.3f}")
    console.result(report, str(run.path))
    console.hint(f"magnet compute {run.generator} --n 2000")
