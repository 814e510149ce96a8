"""magnet index."""

import dataclasses

from magnet_cli.cli import options
from magnet_cli.cli.console import Console


def run(
    generator: options.Generator = "mnist",
    top_k: options.TopK = None,
    truncation: options.Truncation = 1.0,
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
    volume: options.VolumePath = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Index a volume and show how far rho can go.

    The index holds the log-volume of each row, the sum of the logs of its k leading singular values. The effective size
    at each rho says how many rows carry the weight: a draw larger than that repeats rows, or is displaced from where
    the weights ask. Needs no torch. Prints the index's path.

    \b
    Examples:
      magnet index mnist
      magnet index mnist --top-k 8 --json
    """
    from magnet_cli import index
    from magnet_cli.cli import lookup

    console = Console(as_json=json, quiet=quiet)
    own = {"latent_dim": latent_dim, "prior": options.plain(prior), "image_range": image_range}
    checkpoint = lookup.source(generator, here=False, **own)
    chosen = options.chosen(solver), options.chosen(precision)
    more = {"label": options.numbers(label), "bn_truncation": options.statistics(bn_truncation, truncation)}
    more |= {"nvae_latents": options.plain(nvae_latents) or "top"}
    wanted = lookup.Wanted(top_k, space.value, output, truncation, *chosen, **more)
    found = lookup.volume(checkpoint, console, volume, wanted)
    options.check_names(label, checkpoint.name, found.spec.num_classes)
    built, path = lookup.index_of(found, top_k, console)
    built = index.of_labels(built, found, wanted.label)
    sizes = {f"{rho:g}": round(index.effective_size(built, rho), 1) for rho in index.SOME_RHOS}
    top_ks = index.some_top_ks(found.spec.top_k, built.top_k)
    grid = index.effective_sizes(found, built, top_ks, index.SOME_RHOS)
    real = built.above_floor if built.competing is None else built.above_floor & built.competing
    values, rows = built.log_volume[real], built.pool(0.0)
    spread = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    fields = {"index": str(path), "volume": str(found.path), "rows": rows, "top_k": built.top_k}
    fields |= {"below_floor": rows - len(values), "effective_size": sizes}
    fields |= {"effective_size_by_top_k": {str(k): _rounded(by_rho) for k, by_rho in grid.items()}}
    fields |= {"rescaled": index.rescales(found.spec)}
    fields |= {"log_volume": {name: round(float(value), 6) for name, value in spread.items()}}
    console.note(f"{rows:,} rows, top_k {built.top_k}: log-volume sd {values.std():.3g} nats")
    if index.rescales(found.spec):
        console.note(index.RESCALED)
    console.note("effective size" + "".join(f"{rho:>9}" for rho in sizes) + "  (rho)")
    for k, by_rho in grid.items():
        cells = ["-"] * len(sizes) if by_rho is None else [f"{size:,.0f}" for size in by_rho.values()]
        mark = "*" if k == built.top_k else " "
        console.note(f"{f'top_k {k}':<12}{mark} " + "".join(f"{cell:>9}" for cell in cells))
    console.result(fields, str(path))
    same = dataclasses.replace(wanted, top_k=built.top_k).flags
    console.hint(f"magnet sample {checkpoint.reference} --n 64{same} --rho 0.5")


def _rounded(by_rho: dict[float, float] | None) -> dict[str, float] | None:
    return None if by_rho is None else {f"{rho:g}": round(size, 1) for rho, size in by_rho.items()}
