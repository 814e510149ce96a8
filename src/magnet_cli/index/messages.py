"""Texts: what a draw is of, and reasons to doubt a draw.

The word "uniform" stands only where it holds (docs/method.md#what-rho-1-means).
"""

from magnet_cli.index.diagnostics import DISPLACED_SELECTION, DISPLACED_WARNING
from magnet_cli.index.draws import Draw
from magnet_cli.index.index import Index
from magnet_cli.index.prior_correction import is_even
from magnet_cli.volume.spec import VolumeSpec

RESCALED = "the generator normalises z and the imported latents are not: k log(|z|/√D) is added to their log-volumes"
EVEN_PRIOR = "the prior has the same density everywhere: `correct_prior=True` changes nothing"
_UNIFORM = "uniform on"
_EVEN = "the same density everywhere on"


def target(index: Index, rho: float, spec: VolumeSpec, drawn: Draw | None, truncation: float | None = None) -> str:
    """Return the distribution that a draw is of, as text (docs/method.md#what-rho-1-means).

    Args:
        index: of the draw.
        rho: the polarity.
        spec: of the volume.
        drawn: the draw; None for tempered latents, which are no rows.
        truncation: ψ of the images; None for that of the volume.
    """
    own = "the generator's own distribution"
    each = ", the same number of each class" * bool(index.classes)
    if rho == 0 or (drawn and not drawn.num_polarity):
        return own + each
    text = (_tilted(rho) if rho != 1 else _density(index, spec, drawn, truncation)) + each
    if drawn and drawn.ball:
        ball = f"ball |z| <= {drawn.ball.radius:.4g}" if drawn.ball.radius else "region of highest density"
        text += f", inside the {ball} that holds {drawn.ball.prior_mass:g} of the prior"
    if not drawn or drawn.num_polarity == len(drawn.rows):
        return text
    rest = len(drawn.rows) - drawn.num_polarity
    return f"{drawn.num_polarity:,} draws by weight: {text}; the other {rest:,}: {own}"


def _tilted(rho: float) -> str:
    return f"tilted towards the {'modes' if rho < 0 else 'anti-modes'} of the generator"


def _density(index: Index, spec: VolumeSpec, drawn: Draw | None, truncation: float | None) -> str:
    """What rho 1 gives: `density_words`, or "roughly" with the reasons."""
    words = density_words(spec, corrected=index.log_prior is not None)
    against = []
    if index.top_k != spec.rank:
        against.append(f"top_k {index.top_k} is below the rank {spec.rank}")
    if truncation not in {None, spec.truncation}:
        against.append(f"volumes are those at truncation {spec.truncation:g}")
    if drawn and drawn.displaced_share > DISPLACED_WARNING:
        against.append(f"{drawn.displaced_share:.2f} of the draw is displaced")
    if drawn and drawn.unique_rows < len(drawn.rows) / 2:
        against.append("most draws are copies")
    if not against:
        return words
    return f"roughly {words.replace(_UNIFORM, _EVEN)} ({', '.join(against)}: an approximation)"


def density_words(spec: VolumeSpec, *, corrected: bool = False) -> str:
    """Return the density on the manifold at rho 1 and full rank, as text (docs/method.md#what-rho-1-means)."""
    manifold = "the manifold" if spec.output == "pixel" else f"the manifold of {spec.output} outputs, not of images"
    if spec.space == "w":
        return f"density on {manifold} in proportion to p_w, that of w = M(z) under the prior of z: not uniform"
    if corrected or is_even(spec):
        return f"{_UNIFORM} {manifold}"
    return f"density on {manifold} in proportion to the {spec.prior} prior's: not uniform"


def warnings(drawn: Draw, rho: float, *, replace: bool) -> list[str]:
    """Return reasons to doubt a draw, as texts that say what helps."""
    n = drawn.num_polarity
    useful = f"the largest useful rho for {n:,} of {drawn.pool:,} rows is {drawn.largest_useful_rho:.2g}"
    if replace:
        if drawn.unique_rows < len(drawn.rows) / 2:
            return [f"only {drawn.unique_rows:,} different rows in {len(drawn.rows):,} draws: most images are copies"]
        return []
    if drawn.displaced_share > DISPLACED_SELECTION:
        share = f"displaced share {drawn.displaced_share:.2f}"
        return [
            f"{share}: this is a selection of the rows of {'least' if rho < 0 else 'most'} volume, not a draw; {useful}"
        ]
    if drawn.displaced_share > DISPLACED_WARNING:
        return [f"displaced share {drawn.displaced_share:.2f}: that part of the draw is not where rho asks; {useful}"]
    return []
