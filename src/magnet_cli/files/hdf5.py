"""The arrays in the bytes of an HDF5 file, as magnet writes one: contiguous, in the root group, plain numbers.

Owns the part of the HDF5 format (File Format Specification 3.0, superblock 0) that such files consist of. The HDF5
library itself never sees bytes that somebody else may have made: changed ones can send it round in circles. Here every
place is checked against the file's end, every list is as long as it says, and whatever else the format knows (chunks,
filters, links, virtual or external data) is refused, so a small file can ask neither for memory nor for time. Knows
nothing of volumes.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

_SIZE = -1  # stands for a length that the file may choose
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST = 64  # messages of a header, objects of a group, strings of a heap: files of magnet have a dozen
_DATASPACE, _DATATYPE, _EXTERNAL, _PLACE, _FILTERS, _ATTRIBUTE, _CONTINUATION, _GROUP = 1, 3, 7, 8, 11, 12, 16, 17
_TYPES = {  # class, bits, size and the rest of a datatype message, to numpy's name
    bytes.fromhex("11201f00 04000000 00002000 17080017 7f000000"): "<f4",
    bytes.fromhex("11203f00 08000000 00004000 340b0034 ff030000"): "<f8",
    bytes.fromhex("10080000 08000000 00004000"): "<i8",
    bytes.fromhex("10000000 01000000 00000800"): "|u1",
}
_WITH_CHARSET = 3  # version of an attribute that says in which
_TEXT = b"\x19\x01"  # a string of variable length

Form = tuple[str, tuple[int, ...]]


def form(dtype: str, *shape: int | None) -> Form:
    """Return the form of an array: dtype, as "<f4", and shape, with None for any length."""
    return dtype, tuple(_SIZE if length is None else length for length in shape)


def read(
    data: bytes | memoryview, forms: Mapping[str, Form], optional: Iterable[str] = (), attributes: Iterable[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """Return the arrays and attributes of a file; the arrays are views of `data`.

    Args:
        data: the whole file.
        forms: the forms of its arrays by name.
        optional: names of arrays that may be missing.
        attributes: names of the root's attributes: single strings or 64-bit integers.

    Returns:
        The arrays by name, and the attributes by name.

    Raises:
        ValueError: the file is not of that form; the reason is the text.
    """
    file = _File(data)
    try:
        if file.part(0, 16) != _SIGNATURE + bytes([0, 0, 0, 0, 0, 8, 8, 0]):
            _refuse("it does not begin as HDF5 files of magnet do")
        root = list(file.messages(*file.unpack("<Q", 64)))
        links = dict(file.links(root))
        scalars = dict(file.attributes(root))
        if absent := set(attributes) - scalars.keys():
            _refuse(f"its attribute {min(absent)} is missing, or not a single string or integer")
        wanted = forms.keys() - {name for name in optional if name not in links}
        arrays = {name: file.array(name, links, forms[name]) for name in wanted}
    except (struct.error, UnicodeDecodeError) as error:
        message = f"it is not laid out as it says: {error}"
        raise ValueError(message) from error
    return arrays, {name: scalars[name] for name in attributes}


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


@dataclass(frozen=True)
class _File:
    """The structures of a file, each read from its place."""

    data: bytes | memoryview

    def part(self, start: int, size: int) -> bytes:
        if start + size > len(self.data):
            _refuse("it refers to places beyond its end")
        return bytes(self.data[start : start + size])

    def unpack(self, pattern: str, start: int) -> tuple:
        return struct.unpack(pattern, self.part(start, struct.calcsize(pattern)))

    def messages(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Kind and contents of each message in the header of an object; those that are shared elsewhere are refused."""
        version, _, left, _, size = self.unpack("<BBHII", start)
        if version != 1 or left > _MOST:
            _refuse("one of its headers is of another kind")
        blocks = [(start + 16, size)]
        while blocks and left:
            place, size = blocks.pop(0)
            block, at = self.part(place, size), 0
            while at + 8 <= size and left:
                kind, length, flags = struct.unpack_from("<HHB", block, at)
                contents = block[at + 8 : at + 8 + length]
                if flags & 2 or len(contents) != length:
                    _refuse("one of its headers is damaged")
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", contents))
                yield kind, contents
                at, left = at + 8 + length, left - 1

    def links(self, root: list[tuple[int, bytes]]) -> Iterator[tuple[str, int]]:
        """Names in the root group, and where the header of each object is; none for links that are not plain."""
        tables = [contents for kind, contents in root if kind == _GROUP]
        if len(tables) != 1:
            _refuse("its root group is not a plain one")
        tree, heap = struct.unpack("<QQ", tables[0])
        signature, size, _, names = self.unpack("<8sQQQ", heap)
        text = self.part(names, size)
        head, level, nodes = self.unpack("<5sBH", tree)
        if (signature[:4], head, level) != (b"HEAP", b"TREE\0", 0) or nodes > _MOST:
            _refuse("its root group is not a plain one")
        for node in range(nodes):
            (place,) = self.unpack("<Q", tree + 32 + 16 * node)
            signature, entries = self.unpack("<6sH", place)
            if signature[:4] != b"SNOD" or entries > _MOST:
                _refuse("its root group is damaged")
            for entry in range(entries):
                name, header, cached = self.unpack("<QQI", place + 8 + 40 * entry)
                if cached <= 1:  # 2 is a symbolic link
                    yield text[name : text.find(b"\0", name)].decode(), header

    def attributes(self, root: list[tuple[int, bytes]]) -> Iterator[tuple[str, str | int]]:
        """The attributes that are single strings or 64-bit integers."""
        for kind, contents in root:
            if kind != _ATTRIBUTE:
                continue
            version, flags, *sizes = struct.unpack_from("<BBHHH", contents)
            if version not in {1, 2, _WITH_CHARSET} or flags:
                continue
            at, parts = 8 if version < _WITH_CHARSET else 9, []
            for size in sizes:
                parts.append(contents[at : at + size])
                at += -(-size // 8) * 8 if version == 1 else size
            name, datatype, dataspace = parts
            if dataspace[:2] not in {b"\1\0", b"\2\0"}:  # of rank 0
                continue
            if _TYPES.get(datatype) == "<i8":
                yield name.rstrip(b"\0").decode(), struct.unpack_from("<q", contents, at)[0]
            elif datatype[:2] == _TEXT:
                yield name.rstrip(b"\0").decode(), self.text(*struct.unpack_from("<IQI", contents, at))

    def text(self, length: int, heap: int, number: int) -> str:
        """A string of variable length, from the heap of them."""
        signature, size = self.unpack("<8sQ", heap)
        at, end = heap + 16, heap + size
        for _ in range(_MOST):
            if signature[:4] != b"GCOL" or at + 16 > end:
                break
            index, _, held = self.unpack("<HHxxxxQ", at)
            if index == number and held >= length:
                return self.part(at + 16, length).decode()
            at += 16 + -(-held // 8) * 8
        return _refuse("a string of its attributes is missing")

    def array(self, name: str, links: dict[str, int], what: Form) -> np.ndarray:
        if name not in links:
            _refuse(f"its {name} is missing, or is kept elsewhere")
        messages: dict[int, bytes] = {}
        for kind, contents in self.messages(links[name]):
            messages.setdefault(kind, contents)
        if not {_DATASPACE, _DATATYPE, _PLACE} <= messages.keys():
            _refuse(f"its {name} is not an array")
        version, rank = messages[_DATASPACE][:2]
        lengths = struct.unpack_from(
            f"<{rank}Q", messages[_DATASPACE], {1: 8, 2: 4}.get(version, len(messages[_DATASPACE]))
        )
        dtype = next((name_ for key, name_ in _TYPES.items() if messages[_DATATYPE].startswith(key)), "of another type")
        fits = len(lengths) == len(what[1]) and all(a in {_SIZE, b} for a, b in zip(what[1], lengths, strict=True))
        if dtype != what[0] or not fits:
            _refuse(f"its {name} is {_words(dtype, lengths)}, not {_words(*what)}")
        numbers = math.prod(lengths)
        whole = messages[_PLACE][:2] == b"\3\1" and not {_EXTERNAL, _FILTERS} & messages.keys()
        start, size = struct.unpack_from("<QQ", messages[_PLACE], 2) if whole else (0, 0)
        if size != numbers * np.dtype(dtype).itemsize or start + size > len(self.data):
            _refuse(f"its {name} does not lie in one piece inside the file")
        return np.frombuffer(self.data, dtype, numbers, start).reshape(lengths)


def _words(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {'×'.join('any' if length == _SIZE else str(length) for length in shape) or 'single'}"
