"""What nobody pinned: trusted on first use where its format carries no code, remembered, refused when it differs."""

import io
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from servers import believed, entry, everything, hidden, refused, serving, whole, write_list
from torch import nn
from torch_files import RunsWhenRead, saved

from magnet_cli.catalog import cache, download, https, safe_formats
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.errors import ArtifactError


def scripted():
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2), check_trace=False), buffer)
    return buffer.getvalue()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, svds=np.ones((2, 2)), latents=np.ones((2, 2)))
    return buffer.getvalue()


def hdf5():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["x"] = np.ones(3)
    return buffer.getvalue()


STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": nn.Parameter(torch.ones(1, dtype=torch.float16))}
LEGACY = {"_use_new_zipfile_serialization": False}
ONNX = (Path(cache.BUILT_IN) / "digits.onnx").read_bytes()
MODULE = nn.BatchNorm2d(3).state_dict()  # an OrderedDict with attributes
SAFE = {
    "safetensors": ("x.safetensors", save_safetensors({"a": torch.ones(2)})),
    "npz": ("x", npz()),
    "hdf5": ("x.h5", hdf5()),
    "onnx": ("x.onnx", ONNX),
    "torch": ("x.pt", saved(STATE)),
    "torch, a module's": ("x.pth", saved({"netG": MODULE, "epoch": 3})),
    "torch, before 2020": ("x.bin", saved(STATE, **LEGACY)),
}
UNSAFE = {
    "a pickle": ("x.pt", b"\x80\x04]q\x00."),
    "torch with a trap": ("x.pt", saved({"a": RunsWhenRead()})),
    "torch with a trap, before 2020": ("x.pt", saved({"a": RunsWhenRead()}, **LEGACY)),
    "torch, protocol 4": ("x.pt", saved({"a": RunsWhenRead()}, pickle_protocol=4)),
    "a whole module": ("x.pt", saved(nn.Linear(2, 2))),
    "TorchScript": ("x.pt", scripted()),
    "a cut file": ("x.pt", saved(STATE)[:-300]),
    "text": ("x.bin", b"<html>no file</html>"),
    "nothing": ("x.bin", b""),
    "ONNX by another name": ("x.bin", ONNX),
}


@pytest.fixture(autouse=True)
def _believing(monkeypatch):
    """This machine's own certificate is believed."""
    monkeypatch.setenv("SSL_CERT_FILE", believed())
    monkeypatch.setattr(https, "_PAUSES", (0, 0))


@pytest.mark.parametrize("what", SAFE)
def test_formats_without_code_are_told_by_their_bytes(tmp_path, what):
    name, data = SAFE[what]
    (tmp_path / "file").write_bytes(data)
    assert safe_formats.of_file(tmp_path / "file", name) == what.partition(",")[0]
    assert safe_formats.may_be_safe(name)


@pytest.mark.parametrize("what", UNSAFE)
def test_everything_else_is_not(tmp_path, what):
    name, data = UNSAFE[what]
    (tmp_path / "file").write_bytes(data)
    assert safe_formats.of_file(tmp_path / "file", name) == ""
    assert not Path("ran").exists()


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([*SAFE, *UNSAFE]), st.integers(0, 10**6), st.integers(1, 255), st.integers(0, 10**6))
def test_damaged_files_have_some_format_or_none(tmp_path_factory, what, position, mask, end):
    name, data = (SAFE | UNSAFE)[what]
    changed = bytearray(data or b"x")
    changed[position % len(changed)] ^= mask
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(changed[: end % len(changed) + 1] if end % 2 else changed)
    assert isinstance(safe_formats.of_file(path, name), str)


def test_the_first_bytes_are_remembered_and_others_refused(home):
    (_, data), (_, other) = SAFE["npz"], SAFE["torch"]
    with serving({"/x.npz": whole(data)}, tls=True) as server:
        artifact = entry(server.url + "/x.npz", sha256="", size=0)
        assert not cache.is_cached(artifact)
        assert download.fetch(artifact) is True
        assert cache.read(artifact) == data
        assert download.fetch(artifact) is False
        seen = Lockfile(home).seen(artifact.source)
        assert (seen["size"], seen["format"], seen["name"]) == (len(data), "npz", "x.npz")
        path = cache.path_of(artifact)
        path.write_bytes(data[:-1] + b"?")
        with pytest.raises(ArtifactError, match="is not what was pinned"):
            cache.read(artifact)
        path.unlink()
        server.answers["/x.npz"] = whole(other)
        with pytest.raises(ArtifactError, match=f"and {len(data):,} are asked for|is not what was pinned"):
            download.fetch(artifact)
        assert not path.exists()
        same_size = data[:-1] + b"?"
        server.answers["/x.npz"] = whole(same_size)
        with pytest.raises(ArtifactError, match="is not what was pinned") as caught:
            download.fetch(artifact)
        assert "magnet cache rm thing --forget" in caught.value.hint
        assert hidden(home) == []
        assert Lockfile(home).forget(artifact.source)
        server.answers["/x.npz"] = whole(other)
        assert download.fetch(artifact) is True
        assert cache.read(artifact) == other


def test_a_size_without_a_hash_is_held_against_what_comes(home):
    _, data = SAFE["npz"]
    with serving({"/x.npz": whole(data)}, tls=True) as server:
        artifact = entry(server.url + "/x.npz", sha256="", size=len(data) + 1)
        with pytest.raises(ArtifactError, match=f"is {len(data):,} bytes, and {len(data) + 1:,} are asked for"):
            download.fetch(artifact)
    assert Lockfile(home).seen(artifact.source) is None


def test_a_pinned_hash_needs_no_size(home):
    _, data = UNSAFE["a pickle"]
    with serving({"/x.pkl": whole(data)}) as server:
        artifact = entry(server.url + "/x.pkl", data, size=0)
        assert download.fetch(artifact) is True
        assert cache.read(artifact) == data
    assert not (home / "artifacts.lock").exists()


def test_pickles_are_not_even_asked_for_without_trust(home):
    with serving({"/x.pkl": whole(b"\x80\x04N.")}, tls=True) as server:
        artifact = entry(server.url + "/x.pkl", sha256="", size=0)
        error = refused(artifact, home)
        assert server.asked == []
        assert (
            "nobody has pinned the sha256 of thing, and x.pkl is not of a format that cannot carry code"
            in error.message
        )
        assert "magnet fetch thing --trust" in error.hint
        assert download.fetch(artifact, trust=True) is True
        assert download.fetch(artifact) is False  # trusted once
        cache.path_of(artifact).unlink()
        assert download.fetch(artifact) is True


def test_what_only_claims_to_be_safe_is_refused_once_its_bytes_are_here(home):
    _, data = UNSAFE["torch with a trap"]
    with serving({"/x.pt": whole(data)}, tls=True) as server:
        artifact = entry(server.url + "/x.pt", sha256="", size=0)
        error = refused(artifact, home)
        assert "nobody has pinned" in error.message
        assert download.fetch(artifact, trust=True) is True
    assert not Path("ran").exists()


def test_files_of_the_users_own_and_files_placed_by_hand(home, tmp_path, magnet, monkeypatch):
    mine = tmp_path / "mine.npz"
    mine.write_bytes(npz())
    own = entry(f"file:{mine}", sha256="", size=0, name="own")
    placed = entry("https://magnet.invalid/x.npz", sha256="", size=0, name="placed")
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "list.toml", own, placed)))
    assert not cache.is_cached(own)
    assert magnet("fetch", "own", "--json").json["artifacts"][0]["downloaded"] is False
    assert cache.is_cached(own)
    mine.write_bytes(npz()[:-1] + b"?")
    assert "is not what was pinned" in magnet("fetch", "own").err
    path = cache.path_of(placed)
    path.parent.mkdir(parents=True)
    path.write_bytes(npz())
    assert magnet("fetch", "placed").out == f"{path}\n"


def test_a_licence_is_accepted_once(home):
    with serving({"/x": whole(b"1"), "/y": whole(b"2"), "/z": whole(b"3")}) as server:
        terms = {"commercial_use": False, "license": "Research Only 1.0"}
        first, second = (entry(f"{server.url}/{n}", d, **terms) for n, d in (("x", b"1"), ("y", b"2")))
        refused(first, home)
        download.fetch(first, accept_license=True)
        assert download.fetch(second) is True
        other = entry(f"{server.url}/z", b"3", commercial_use=False, license="Research Only 2.0")
        with pytest.raises(ArtifactError, match=r"Research Only 2\.0"):
            download.fetch(other)


def test_a_damaged_record_is_said_and_not_passed_over(home):
    Lockfile(home).record("https://a/b", {"sha256": "0" * 64, "size": 1, "format": "npz", "name": "b"})
    path = home / "artifacts.lock"
    text = path.read_text()
    path.write_text(text.replace("0000", "0001", 1))
    with pytest.raises(ArtifactError, match="was changed after it was written") as caught:
        cache.pinned(entry("https://a/b", sha256=""))
    assert "artifacts.lock" in caught.value.hint


RECORDS = """
import sys
from pathlib import Path
from magnet_cli.catalog.lockfile import Lockfile

for number in range(10):
    ledger = Lockfile(Path(sys.argv[1]))
    ledger.record(f"https://host/{sys.argv[2]}/{number}", {"sha256": sys.argv[2] * 64, "size": 1})
    ledger.accept(f"licence {sys.argv[2]} {number}")
    print(ledger.record("https://host/same", {"sha256": sys.argv[2] * 64, "size": 1})["sha256"])
"""


def test_processes_that_record_at_once_lose_nothing(home):
    commands = [[sys.executable, "-c", RECORDS, str(home), name] for name in "abcd"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    said = {line for child in running for line in child.communicate()[0].splitlines()}
    assert [child.returncode for child in running] == [0] * 4
    assert len(said) == 1  # the first wins, for all
    fields = json.loads((home / "artifacts.lock").read_text())
    assert len(fields["artifacts"]) == 41
    assert len(fields["licenses"]) == 40


@pytest.mark.slow
def test_no_member_of_a_torch_file_is_unpacked_without_bound(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + b"N0" * ((1 << 25) + 9) + b".")
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 20
    assert safe_formats.of_file(tmp_path / "bomb.pt", "bomb.pt") == ""
    assert everything(tmp_path / "home") == []
