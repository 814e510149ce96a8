"""npy: arrays of a user, every number checked."""

import numpy as np
import pytest

from magnet_cli.errors import SpecError
from magnet_cli.files import npy


def saved(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    return tmp_path / "a.npy"


def test_latents_are_floating_finite_and_two_dimensional(tmp_path):
    z = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_array_equal(npy.latents(saved(tmp_path, z)), z)
    z[3, 1] = np.inf
    with pytest.raises(SpecError, match="row 3"):
        npy.latents(saved(tmp_path, z))
    z[3, 1] = 1e300  # finite as float64 alone
    with pytest.raises(SpecError, match="row 3"):
        npy.latents(saved(tmp_path, z))
    for wrong in (np.zeros(4), np.zeros((2, 2), int)):
        with pytest.raises(SpecError, match=r"latents \[n, D\] of floating numbers"):
            npy.latents(saved(tmp_path, wrong))
    with pytest.raises(SpecError, match=r"float64 of shape \[0, 3\]"):
        npy.latents(saved(tmp_path, np.zeros((0, 3))))


def test_a_direction_has_length_one(tmp_path):
    for array in (np.array([3.0, 4.0]), np.array([[3.0, 4.0]], np.float16)):
        np.testing.assert_allclose(npy.vector(saved(tmp_path, array)), [[0.6, 0.8]], rtol=1e-6)
    for wrong in (np.zeros(3), np.array([1, 2]), np.ones((2, 2)), np.array([np.nan, 1.0])):
        with pytest.raises(SpecError, match="a direction"):
            npy.vector(saved(tmp_path, wrong))


def test_labels_are_whole_numbers_or_one_hot(tmp_path):
    assert npy.labels(saved(tmp_path, np.array([2, 0], np.uint8)), 2, 3).tolist() == [2, 0]
    assert npy.labels(saved(tmp_path, np.eye(3)[[2, 0]]), 2, 3).tolist() == [2, 0]
    for wrong in (
        np.array([0, 3]),
        np.array([-1, 0]),
        np.ones((2, 3)),
        np.array([0.0, 1.0]),
        np.array(1),
        np.array([0]),
    ):
        with pytest.raises(SpecError, match="labels of 2 latents in 3 classes"):
            npy.labels(saved(tmp_path, wrong), 2, 3)


def test_what_is_no_npy_file_is_said(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(SpecError, match="an NPY file is asked for"):
        npy.latents(tmp_path / "a.npy")
