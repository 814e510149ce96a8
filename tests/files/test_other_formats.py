"""What people pass by mistake is named, with what to do about it."""

import gzip
import io
import json
import tarfile
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import torch
from torch_files import saved

from magnet_cli.errors import GeneratorError
from magnet_cli.files import checkpoints

ONNX = bytes.fromhex("080e3a3b0a0c0a017a12017822045461")  # its first bytes, as torch's exporter writes them


def made(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(name):
    def write(buffer):
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, b"x")

    return made(write)


def tarred(buffer):
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("netG.pth"))


def scripted(buffer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)


def keras(buffer):
    with h5py.File(buffer, "w") as file:
        file["layer"] = np.zeros(2)


MODULE = torch.nn.Sequential(torch.nn.Linear(2, 2))
CASES = {
    "an empty file": (b"", "is empty", "fetch"),
    "blanks": (b"\n\n", "is empty", "fetch"),
    "a web page": (b"\n\n<!DOCTYPE html><html>", "is a web page", "fetch the file itself"),
    "a page without a doctype": (b"<HTML><head>", "is a web page", "fetch the file itself"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS", "git lfs pull"),
    "half a download": (saved({"a": torch.ones(900)})[:2000], "is cut off", "fetch or write it again"),
    "TorchScript": (made(scripted), "is a TorchScript file", "state dict"),
    "a whole module": (saved(MODULE), r"whole pickled module, torch\.nn\.modules\.container\.Sequential", "state_dict"),
    "a whole module, older": (
        saved(MODULE, _use_new_zipfile_serialization=False),
        "whole pickled module",
        "state_dict",
    ),
    "a whole module in a dict": (saved({"netG": MODULE}), "whole pickled module", "state_dict"),
    "ONNX": (ONNX, "is an ONNX file", "file.py:factory"),
    "Keras": (made(keras), "as Keras writes", "file.py:factory"),
    "a zip file": (zipped("netG.pth"), r"zip archive that holds netG\.pth", "unpack"),
    "a tar file": (made(tarred), r"tar archive that holds netG\.pth", "unpack"),
    "a gzip file": (gzip.compress(b"x"), "archive of gzip", "unpack"),
    "arrays": (made(lambda buffer: np.savez(buffer, a=np.zeros(2))), r"NumPy arrays that holds a\.npy", "state_dict"),
    "JSON": (json.dumps({"a": 1}).encode(), "is text that begins", "fetch"),
}


@pytest.mark.parametrize("name", CASES)
def test_files_of_another_kind_are_named(name):
    data, said, hint = CASES[name]
    for fits in (None, lambda _: True):
        with pytest.raises(GeneratorError, match=said) as error:
            checkpoints.read(data, "some.pth", fits)
        assert error.value.message.startswith("some.pth is ")
        assert hint in error.value.hint


def test_info_says_that_there_is_no_such_file(magnet, tmp_path):
    for name in ("missing.pt", "missing.SAFETENSORS"):
        said = magnet("info", name)
        assert said.code == 1
        assert f"there is no file {name} in this folder" in said.err
    assert "no artifact is called 'mnistt'" in magnet("info", "mnistt").err
    (tmp_path / "keras.h5").write_bytes(CASES["Keras"][0])
    assert "as Keras writes" in magnet("info", tmp_path / "keras.h5").err
