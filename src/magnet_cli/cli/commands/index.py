"""magnet index."""

from magnet_cli.cli import options
from magnet_cli.cli.console import Console


@options.flatten
def run(generator: options.GeneratorFlags, volume: options.VolumeFlags, output: options.OutputFlags) -> None:
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
    from magnet_cli.cli import references
    from magnet_cli.sampling import select

    console, source = output.console, references.source(generator, here=False)
    request = options.request(select.VolumeRequest, volume)
    resolved = select.resolve(source, request, console)
    built = index.of_labels(resolved.index, resolved.volume, request.labels)
    fields = index.summary(built, resolved.volume)
    _show(console, fields)
    paths = {"index": str(resolved.index_path), "volume": str(resolved.volume.path)}
    console.result(paths | fields, str(resolved.index_path))
    same, (n, rho) = select.flags_of(resolved.volume, built.top_k, request.label), index.useful_draw(built, 64)
    console.hint(f"magnet sample {select.reference(source)} --n {n}{same} --rho {rho:g}")


def _show(console: Console, fields: dict) -> None:
    """Show the spread of log-volume, and effective sizes by rho and k."""
    from magnet_cli import index

    spread, rhos = fields["log_volume"]["std"], fields["effective_size"]
    console.note(f"{fields['rows']:,} rows, top_k {fields['top_k']}: log-volume sd {spread:.3g} nats")
    if fields["rescaled"]:
        console.note(index.RESCALED)
    console.note("effective size" + "".join(f"{rho:>9}" for rho in rhos) + "  (rho)")
    for k, sizes in fields["effective_size_by_top_k"].items():
        cells = ["-"] * len(rhos) if sizes is None else [f"{size:,.0f}" for size in sizes.values()]
        mark = "*" if k == str(fields["top_k"]) else " "
        console.note(f"{f'top_k {k}':<12}{mark} " + "".join(f"{cell:>9}" for cell in cells))
