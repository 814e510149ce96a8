"""files.documents: what was written comes back; what was changed is noticed."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magnet_cli.errors import MagnetError
from magnet_cli.files import documents

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.text().filter(lambda key: key != "checksum"), JSON_VALUES, max_size=4)


@settings(deadline=None, max_examples=50)
@given(FIELDS)
def test_a_document_gives_its_fields_back(fields):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doc.json"
        path.write_bytes(documents.encode(fields))
        assert documents.read(path) == fields
        assert documents.encode(documents.read(path)) == path.read_bytes()


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(FIELDS, st.integers(min_value=0), st.integers(1, 255))
@example({"a": 1e300}, documents.encode({"a": 1e300}).index(b"300"), ord("3") ^ ord("9"))  # reads as infinity
@example({"a": 1}, 0, ord("{"))  # a null byte in front reads as UTF-16
@example({"a": "é"}, documents.encode({"a": "é"}).index("é".encode()), 0x40)  # no UTF-8 any more
def test_any_changed_byte_in_a_document_is_noticed(fields, position, mask):
    data = bytearray(documents.encode(fields))
    data[position % len(data)] ^= mask
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doc.json"
        path.write_bytes(data)
        with pytest.raises(MagnetError) as caught:
            documents.read(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d[:-1], "was changed"),
        (lambda d: d + b" ", "was changed"),
        (lambda d: d[: len(d) // 2], "is not JSON"),
        (lambda _: b"", "is not JSON"),
        (lambda _: b"[1, 2]", "without a checksum"),
        (lambda _: b'{"a": 1}', "without a checksum"),
        (lambda d: d.replace(b'"a": 1', b'"a": 1,\n  "a": 1'), "was changed"),
        (lambda d: d.replace(b'"a": 1', b'"a": NaN'), "was changed"),
        (lambda d: d.replace(b'"a": 1', b'"a": "\\ud800"'), "was changed"),
    ],
)
def test_what_is_no_document_is_said_to_be_none(tmp_path, change, said):
    path = tmp_path / "doc.json"
    path.write_bytes(change(documents.encode({"a": 1, "b": [2.5, "x"]})))
    with pytest.raises(MagnetError, match=said):
        documents.read(path)


def test_canonical_bytes_do_not_depend_on_the_order_of_keys():
    assert documents.canonical({"b": {"y": 1, "x": "é"}, "a": 0.1}) == '{"a":0.1,"b":{"x":"é","y":1}}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        documents.canonical({"a": float("nan")})


def test_the_hash_of_a_folder_is_what_the_shell_prints(tmp_path):
    names = ["b", "B", "a.b", "a/b", "a-b", "a/.hidden", "é/ü", "z/y/x/w", ".part", "10", "9"]
    for i, name in enumerate(names):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(name.encode() * i)
    line = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    assert line.rpartition(" | ")[0] in documents.sha256_folder.__doc__
    printed = subprocess.run(["sh", "-c", line], cwd=tmp_path / "f", capture_output=True, text=True, check=True).stdout
    sha256, size = documents.sha256_folder(tmp_path / "f")
    assert sha256 == printed.split()[0]
    assert size == sum(len(name.encode()) * i for i, name in enumerate(names))
