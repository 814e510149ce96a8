"""Where the tensors of an ONNX file lie: in it, or in other files, which no hash of its bytes covers.

Owns the few fields of the format's protocol buffers that lead to tensors. Runs nothing.
"""

from collections.abc import Iterator

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a field is stored
_DEEPEST = 64  # graphs within graphs
_LOCATION, _EXTERNAL_DATA = 14, 13  # of a tensor: 1 for elsewhere, and where
_INNER = {  # message: the messages in it by number of their field
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def has_external_data(data: bytes) -> bool:
    """Return whether a tensor of an ONNX file lies in another file.

    Raises:
        ValueError: the bytes are no protocol buffers.
    """
    return _leads_out(memoryview(data), "model", _DEEPEST)


def _leads_out(message: memoryview, kind: str, depth: int) -> bool:
    if not depth:
        raise ValueError("its graphs lie in each other too deeply")
    for number, value in _fields(message):
        if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _LOCATION and value != 0)):
            return True
        inner = _INNER[kind].get(number)
        if inner and isinstance(value, memoryview) and _leads_out(value, inner, depth - 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = _varint(message, at) if wire == _BYTES else ({_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire, -1), at)
        if size < 0 or at + size > len(message):
            raise ValueError("it is not laid out as it says")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is not laid out as it says")
