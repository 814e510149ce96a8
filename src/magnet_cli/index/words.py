"""What weights ask for, and what is wrong with a draw, in words.

Owns the texts, and where the word uniform may stand (METHOD: what ρ=1 means).
"""

from magnet_cli.index.diagnostics import DISPLACED_SELECTION, DISPLACED_WARNING
from magnet_cli.index.draws import Draw
from magnet_cli.index.rows import Index
from magnet_cli.volume.spec import VolumeSpec

RESCALED = "the generator normalises z and the imported latents are not: k log(|z|/√D) is added to their log-volumes"


def target(index: Index, rho: float, spec: VolumeSpec) -> str:
    """What the weights ask for, in words (METHOD: what ρ=1 means); "uniform" only where it holds."""
    if rho == 0:
        return "the generator's own distribution"
    if rho != 1:
        return f"tilted towards the {'modes' if rho < 0 else 'anti-modes'} of the generator"
    density = density_words(spec)
    if index.top_k == spec.rank:
        return density
    return f"roughly {density} (top_k {index.top_k} is below the rank {spec.rank}: an approximation)"


def density_words(spec: VolumeSpec) -> str:
    """The density on the manifold that rho 1 asks for at full rank, in words (METHOD: what ρ=1 means; `--space`)."""
    if spec.space == "w":
        return "density on the manifold in proportion to p_w, that of w = M(z) under the prior of z: not uniform"
    return f"density on the manifold in proportion to the {spec.prior} prior's" + ": not uniform" * (
        spec.prior.endswith("normal")
    )


def warnings(drawn: Draw, n: int, rho: float, *, replace: bool) -> list[str]:
    """Reasons to doubt a draw, in words, each with what helps."""
    useful = f"the largest useful |rho| for {n:,} of {drawn.pool:,} rows is {abs(drawn.largest_useful_rho):.2g}"
    if replace:
        if drawn.unique_rows < n / 2:
            return [f"only {drawn.unique_rows:,} different rows in {n:,} draws: most images are copies"]
        return []
    if drawn.displaced_share > DISPLACED_SELECTION:
        share = f"displaced share {drawn.displaced_share:.2f}"
        return [
            f"{share}: this is a selection of the rows of {'least' if rho < 0 else 'most'} volume, not a draw; {useful}"
        ]
    if drawn.displaced_share > DISPLACED_WARNING:
        return [f"displaced share {drawn.displaced_share:.2f}: that part of the draw is not where rho asks; {useful}"]
    return []
