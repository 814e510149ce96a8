"""Sample the manifold of a pretrained generator: uniformly, towards its modes, or away from them.

The names in `__all__` are the public API, described in docs/reference/python.md; nothing else is promised. They are
imported at their first use, so that `import magnet_cli` costs nothing.

>>> from magnet_cli import Index, Volume, fetch
>>> volume = Volume.open(fetch("mnist-volume"))
>>> draw = Index.of(volume).draw(64, rho=0.3)
>>> volume.latents(draw.rows).shape
(64, 16)
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers take it as true; typing itself would be a slow import
if TYPE_CHECKING:
    from magnet_cli.computing import compute as compute
    from magnet_cli.computing import compute_steps as compute_steps
    from magnet_cli.errors import MagnetError as MagnetError
    from magnet_cli.evaluating.evaluation import evaluate as evaluate
    from magnet_cli.index import Index as Index
    from magnet_cli.index import log_volume as log_volume
    from magnet_cli.maths.jacobian import singular_values as singular_values
    from magnet_cli.models import Generator as Generator
    from magnet_cli.models import load as load
    from magnet_cli.sampling.render import render as render
    from magnet_cli.sampling.sample import sample as sample
    from magnet_cli.sampling.sample import sample_steps as sample_steps
    from magnet_cli.sampling.sample_folder import Sample as Sample
    from magnet_cli.sharing.fetching import fetch as fetch
    from magnet_cli.volume import Volume as Volume

_MODULES = {
    "fetch": "sharing.fetching",
    "load": "models",
    "Generator": "models",
    "singular_values": "maths.jacobian",
    "log_volume": "index",
    "compute": "computing",
    "compute_steps": "computing",
    "Volume": "volume",
    "Index": "index",
    "render": "sampling.render",
    "sample": "sampling.sample",
    "sample_steps": "sampling.sample",
    "Sample": "sampling.sample_folder",
    "evaluate": "evaluating.evaluation",
    "MagnetError": "errors",
}
__all__ = [*_MODULES]  # noqa: PLE0604  # names


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # it is not free either

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
