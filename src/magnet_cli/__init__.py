"""magnet: sample the manifold of a pretrained generator uniformly, towards its modes, or away from them."""

__version__ = "0.1.0"
