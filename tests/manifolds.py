"""Generators whose manifolds are known: what they are, and how much of a draw belongs into each cell of the latents.

The maps are factories of a user's own module, as `manifolds.py:half_sphere`. The areas come from calculus, or from the
triangles of a fine mesh: never from the Jacobians that are tested.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor, nn

_PARTS = 10  # cells along each coordinate
_MESH = 60  # squares of the mesh along the side of a cell
_RADIUS = math.sqrt(-2 * math.log(1 - 0.99))  # of the disc that holds 0.99 of N(0, I) in the plane


class Map(nn.Module):
    """A function of latents [B, D] as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor], latent_dim: int, prior: str = "uniform"):
        super().__init__()
        self.function, self.latent_dim, self.prior = function, latent_dim, prior

    def forward(self, z):
        return self.function(z)


def curve():
    """t to (t, t³/3), t in [-2, 2]."""
    return Map(lambda z: torch.cat([2 * z, (2 * z) ** 3 / 3], dim=1), 1)


def half_sphere():
    """The square to the half sphere, by latitude and longitude."""

    def function(z):
        latitude, longitude = (z[:, 0] + 1) * (math.pi / 4), z[:, 1] * math.pi
        across = latitude.cos()
        return torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], dim=1)

    return Map(function, 2)


def surface():
    """The square to a surface that a 2-64-64-3 ReLU network was trained to be."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
        steps = torch.optim.Adam(made.parameters(), lr=3e-3)
        for _ in range(300):
            z = 2 * torch.rand(512, 2) - 1
            height = torch.exp(-4 * (z - 0.3).square().sum(dim=1, keepdim=True))
            loss = (made(z) - torch.cat([z * (1.2 + z.roll(1, dims=1)), 3 * height], dim=1)).square().mean()
            steps.zero_grad()
            loss.backward()
            steps.step()
    made.latent_dim, made.prior = 2, "uniform"
    return made


def plane():
    """The plane to itself, z (1 + |z|²); its prior is N(0, I)."""
    return Map(lambda z: z * (1 + z.square().sum(dim=1, keepdim=True)), 2, "normal")


@dataclass(frozen=True)
class Manifold:
    """What is known of one.

    Attributes:
        factory: its name in this file.
        cells: latents [n, D] to the number of the cell each is in.
        masses: the probability of each cell where the density over the latents is prior · area^rho; for a prior that is
            corrected for, prior^(1 − rho) · area^rho inside the disc.
        correct: whether it is.
    """

    factory: str
    cells: Callable[[np.ndarray], np.ndarray]
    masses: Callable[[float], np.ndarray]
    correct: bool = False

    @property
    def reference(self) -> str:
        return f"{__file__}:{self.factory}"


def _along(unit: np.ndarray, parts: int = _PARTS) -> np.ndarray:
    return np.clip((unit * parts).astype(int), 0, parts - 1)


def _shares(masses) -> np.ndarray:
    return np.asarray(masses) / np.sum(masses)


def _curve_masses(rho: float) -> np.ndarray:
    edges = np.linspace(-2, 2, 2 * _PARTS + 1)
    return _shares([quad(lambda t: (1 + t**4) ** (rho / 2), a, b)[0] for a, b in itertools.pairwise(edges)])


def _sphere_cells(z: np.ndarray) -> np.ndarray:
    """100 of equal area: as high as each other (Archimedes), and as wide."""
    return _PARTS * _along(np.sin((z[:, 0] + 1) * np.pi / 4)) + _along((z[:, 1] + 1) / 2)


def _sphere_masses(rho: float) -> np.ndarray:
    edges = np.arcsin(np.linspace(0, 1, _PARTS + 1))
    bands = [quad(lambda a: np.cos(a) ** rho, a, b)[0] for a, b in itertools.pairwise(edges)]
    return _shares(np.repeat(bands, _PARTS))


@functools.cache
def _surface_masses(rho: float) -> np.ndarray:
    size = _PARTS * _MESH
    line = torch.linspace(-1, 1, size + 1, dtype=torch.float64)
    trained = surface().double()
    with torch.no_grad():
        corners = trained(torch.cartesian_prod(line, line)).reshape(size + 1, size + 1, 3)
    a, b, c, d = corners[:-1, :-1], corners[1:, :-1], corners[:-1, 1:], corners[1:, 1:]
    areas = (torch.linalg.cross(b - a, c - a).norm(dim=2) + torch.linalg.cross(b - d, c - d).norm(dim=2)).numpy()
    return _shares((areas**rho).reshape(_PARTS, _MESH, _PARTS, _MESH).sum(axis=(1, 3)).ravel())


def _plane_cells(z: np.ndarray) -> np.ndarray:
    """100 of the disc's image, of equal area."""
    z = z.astype(np.float64)
    radius, whole = np.linalg.norm(z, axis=1), _RADIUS + _RADIUS**3
    turned = np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi) + 0.5
    return _PARTS * _along(((radius + radius**3) / whole) ** 2) + _along(turned)


def _plane_masses(rho: float) -> np.ndarray:
    images = (_RADIUS + _RADIUS**3) * np.sqrt(np.linspace(0, 1, _PARTS + 1))
    edges = [float(np.roots([1, 0, 1, -x])[np.abs(np.roots([1, 0, 1, -x]).imag) < 1e-9].real[0]) for x in images]

    def density(r):
        return ((1 + r**2) * (1 + 3 * r**2)) ** rho * np.exp(-(r**2) / 2 * (1 - rho)) * r

    rings = [quad(density, a, b)[0] for a, b in itertools.pairwise(edges)]
    return _shares(np.repeat(rings, _PARTS))


MANIFOLDS = (
    Manifold("curve", lambda z: _along((z[:, 0] + 1) / 2, 2 * _PARTS), _curve_masses),
    Manifold("half_sphere", _sphere_cells, _sphere_masses),
    Manifold("surface", lambda z: _PARTS * _along((z[:, 0] + 1) / 2) + _along((z[:, 1] + 1) / 2), _surface_masses),
    Manifold("plane", _plane_cells, _plane_masses, correct=True),
)
