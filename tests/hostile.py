"""Hostile checkpoints, and a process of its own in which they are read: `python hostile.py [mutations]`.

Each is read in a fork with a limit on memory, processor time and file size, under an audit hook that ends it when
anything but reading happens, in an empty folder where a file would show that a payload ran. Prints JSON: by case, what
came of it. With `mutations`, each guard of the readers is taken out in turn: by guard, the first case that notices.
"""

import ast
import io
import json
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

import nvlabs_files
from magnet_cli.errors import GeneratorError
from magnet_cli.generators import readers
from magnet_cli.generators.readers import nvlabs, pickles, safetensors_file, tensors, torch_file
from torch_files import saved

MEMORY = 256 << 20  # beside what the process has when it starts to read
SECONDS = 2  # of processor time; the slowest case takes a tenth
HARMLESS = {"object.__getattr__", "object.__setattr__", "object.__delattr__", "builtins.id"}
CANARY = "touch canary"
READERS = (pickles, tensors, safetensors_file, torch_file, nvlabs, readers)  # in the order of their imports


class Evil:
    """Calls something when it is unpickled."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


class Vast(bytes):
    """Says that it is larger than it is."""

    def __len__(self):
        return 1 << 40


# --- the bytes ------------------------------------------------------------------------------------------------------


def dumped(tree, protocol=4):
    return nvlabs_files.dumped(tree, protocol)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def blob(value):
    return b"B" + struct.pack("<I", len(value)) + value


def number(value):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(name):
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def mapping(**parts):
    return b"}(" + b"".join(text(key) + value for key, value in parts.items()) + b"u"


def call(name, *parts):
    return named(name) + tuple_of(*parts) + b"R"


def whole(body):
    return b"\x80\x04" + body + b"."


NONE = b"N"
ORDERED = call("collections OrderedDict")
META = {"type": text("class"), "version": b"K\x06", "module_src": text(CANARY), "class_name": text("Generator")}


def module(parameters=b"}", modules=b"}", settings=b"}", *, before=b"", after=b"", **more):
    """One record of the persistence hook."""
    state = {"_parameters": parameters, "_buffers": b"}", "_modules": modules}
    state |= {"_non_persistent_buffers_set": b"\x8f", "_init_args": b")", "_init_kwargs": settings}
    state |= {key.removeprefix("state"): value for key, value in more.items() if key.startswith("state_")}
    meta = META | {"state": mapping(**state)} | {k: v for k, v in more.items() if not k.startswith("state_")}
    inner = named("torch_utils.persistence _reconstruct_persistent_obj") + before + tuple_of(mapping(**meta)) + b"R"
    return inner + after


def snapshot(*parts, **more):
    return whole(mapping(G_ema=module(*parts, **more)))


def beside(body):
    """A snapshot that is whole, with something else in it, which nobody looks at."""
    return whole(mapping(G=body, G_ema=module()))


def stored(numbers=(1.0, 2.0, 3.0), count=None, *, identity=None, keys=None, head=None, tail=b"", held=None):
    """The older file of torch that is a storage."""
    count = len(numbers) if count is None else count
    kind = (text("storage"), named("torch FloatStorage"), text("7"), text("cpu"), number(count), NONE)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (tensors.LEGACY_MAGIC, 1001, system)]
    parts = parts if head is None else head(parts)
    parts += [b"\x80\x02" + (tuple_of(*kind) + b"Q" if identity is None else identity) + b"."]
    parts += [pickle.dumps(["7"] if keys is None else keys, 2), struct.pack("<q", count if held is None else held)]
    return b"".join(parts) + struct.pack(f"<{len(numbers)}f", *numbers) + tail


def storage(data):
    return call("torch.storage _load_from_bytes", blob(data))


def tensor(size=(3,), stride=(1,), offset=0, data=None, where=None):
    where = storage(stored() if data is None else data) if where is None else where
    sizes, strides = (tuple_of(*map(number, numbers)) for numbers in (size, stride))
    return call("torch._utils _rebuild_tensor_v2", where, number(offset), sizes, strides, b"\x89", ORDERED)


def weights(**flags):
    return snapshot(mapping(weight=tensor(**flags)))


def dtype(code="f8", order="<"):
    made = call("numpy dtype", text(code), b"\x89", b"\x88")
    return made + tuple_of(b"K\x03", text(order), NONE, NONE, NONE, number(-1), number(-1), b"K\x00") + b"b"


def scalar(kind, data):
    return call("numpy.core.multiarray scalar", kind, blob(data))


def array(shape, data=bytes(8), kind=None, fortran=b"\x89"):
    made = call("numpy._core.multiarray _reconstruct", named("numpy ndarray"), tuple_of(b"K\x00"), blob(b"b"))
    sizes = tuple_of(*map(number, shape)) if isinstance(shape, tuple) else shape
    return made + tuple_of(b"K\x01", sizes, kind or dtype(), fortran, blob(data)) + b"b"


def settings(body):
    return snapshot(settings=mapping(z_dim=body))


def doubling(levels, start=b"K\x01", pair=b"\x86"):
    """A value of 2^levels parts, in three bytes a level."""
    return start + b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + pair for level in range(levels))


def nested_modules(levels):
    """Modules of which each has the one before as two children."""
    made = [module() + b"q\x00"]
    for level in range(levels):
        before = b"h" + bytes([level])
        made.append(module(modules=mapping(a=before, b=before)) + b"q" + bytes([level + 1]))
    return whole(mapping(G=tuple_of(*made), G_ema=b"h" + bytes([levels])))


def chained(levels):
    """Modules, one in the other."""
    inner = module()
    for _ in range(levels):
        inner = module(modules=mapping(a=inner))
    return whole(mapping(G_ema=inner))


def variables(name="x", value=None, **more):
    """A network of TensorFlow."""
    value = scalar(dtype(), bytes(8)) if value is None else value
    state = {"version": b"K\x05", "static_kwargs": b"}", "components": b"}"}
    state |= {"variables": b"](" + text(name) + value + b"\x86e"} | more
    return named("dnnlib.tflib.network Network") + b")\x81" + mapping(**state) + b"b"


def networks(body=None, **more):
    return whole(tuple_of(NONE, NONE, variables(**more) if body is None else body))


def zipped(pickled, parts=(), *, compression=zipfile.ZIP_STORED, name="archive/data.pkl", order=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, pickled)
        for key, data in dict(parts).items():
            archive.writestr(f"archive/data/{key}", data)
        if order is not None:
            archive.writestr("archive/byteorder", order)
    return buffer.getvalue()


def persistent(count=3, kind="torch FloatStorage", word="storage", key=None, view=b""):
    key = text("0") if key is None else key
    return tuple_of(text(word), named(kind), key, text("cpu"), number(count), view) + b"Q"


def zipped_tensor(where=None, parts=None, **flags):
    body = mapping(weight=tensor(where=persistent() if where is None else where, **flags))
    return zipped(whole(body), {"0": bytes(12)} if parts is None else parts)


def chained_networks(levels):
    """Networks of TensorFlow, one in the other."""
    inner = variables()
    for _ in range(levels):
        inner = variables(components=mapping(a=inner))
    return networks(inner)


def header(at, value):
    """Another pickle in the place of one of the three that a storage begins with."""
    return lambda parts: [value if i == at else part for i, part in enumerate(parts)]


RUNS = pickle.dumps(Evil(os.system, CANARY), 2)
TRAP = b"\x8c\x05posix\x8c\x06system\x93" + text(CANARY) + b"\x85R"
CYCLE = tuple_of(module(modules=b"}q\x09") + b"q\x08", b"h\x09" + text("a") + b"h\x08s")
DEEP = b"]" * 5_000 + b"a" * 4_999
OUTSIDE, SIZE, STORAGE = "reaches outside its storage", "tensor of an impossible size", "storage of an unknown kind"
PICKLED = saved({"a": torch.ones(3), "trap": Evil(os.system, CANARY)})

# --- what is read, and what its error must say ----------------------------------------------------------------------

CASES = {
    # code
    "os.system by GLOBAL": (dumped({"G": Evil(os.system, CANARY), "G_ema": None}, 2), r"names 'posix\.system'"),
    "os.system by STACK_GLOBAL, deep inside": (dumped({"G": [({"a": Evil(os.system, CANARY)},)]}, 4), "posix.system"),
    "os.system in the average": (snapshot(mapping(weight=TRAP)), "posix.system"),
    "os.system in settings": (settings(TRAP), "posix.system"),
    "subprocess": (dumped({"G": Evil(subprocess.Popen, ["touch", "canary"])}, 5), "subprocess.Popen"),
    "eval": (dumped({"G": Evil(eval, f"__import__('os').system({CANARY!r})")}, 3), "builtins.eval"),
    "exec": (dumped({"G": Evil(exec, f"import os; os.system({CANARY!r})")}, 3), "builtins.exec"),
    "a chain of getattr": (
        beside(call("builtins getattr", call("builtins __import__", text("os")), text("system"))),
        r"builtins\.getattr",
    ),
    "a dotted name": (beside(b"\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93"), "OrderedDict.__class__"),
    "torch.load": (beside(call("torch load", text("x"))), "torch.load"),
    "another way into torch": (beside(call("torch.storage _load_from_file", text("x"))), "_load_from_file"),
    "a name that is a number": (beside(b"K\x01K\x02\x93"), "names a global by what is no name"),
    "os.system in a storage": (weights(data=stored(identity=RUNS[:-1])), "posix.system|_load_from_bytes"),
    "os.system in the head of a storage": (weights(data=stored(head=header(2, RUNS))), "posix.system"),
    "a storage in a storage": (weights(data=stored(identity=storage(stored()))), "_load_from_bytes"),
    "os.system in a torch file": (PICKLED, "posix.system"),
    "os.system in an older torch file": (
        saved({"trap": Evil(os.system, CANARY)}, _use_new_zipfile_serialization=False),
        "posix.system",
    ),
    "os.system in a torch file's Namespace": (
        zipped(whole(mapping(args=named("argparse Namespace") + b")\x81" + mapping(a=TRAP) + b"b"))),
        "posix.system",
    ),
    # opcodes
    "EXT1": (whole(b"\x82\x01"), "opcode EXT1"),
    "EXT2": (whole(b"\x83\x01\x01"), "opcode EXT2"),
    "EXT4": (whole(b"\x84\x01\x01\x01\x01"), "opcode EXT4"),
    "INST": (whole(b"(" + text(CANARY) + b"iposix\nsystem\n"), "opcode INST"),
    "OBJ": (whole(b"(" + named("collections OrderedDict") + b"o"), "opcode OBJ"),
    "NEWOBJ_EX": (whole(named("dnnlib.util EasyDict") + b")}\x92"), "opcode NEWOBJ_EX"),
    "PERSID": (whole(b"P0\n"), "opcode PERSID"),
    "BINPERSID": (beside(b"K\x01Q"), "names an object outside"),
    "NEXT_BUFFER": (whole(b"\x97"), "opcode NEXT_BUFFER"),
    "DUP": (whole(b"]" + b"2" * 9), "opcode DUP"),
    # calls and states that are not those of weights
    "a call of a text": (beside(text("os.system") + b")R"), "calls what is not named by a global"),
    "a call of an object": (beside(ORDERED + b")R"), "calls what is not named by a global"),
    "a call with a list": (beside(named("collections OrderedDict") + b"]R"), "no arguments"),
    "NEWOBJ of a function": (beside(named("torch._utils _rebuild_parameter") + b")\x81"), "by NEWOBJ"),
    "a state for a global": (beside(named("collections OrderedDict") + mapping(x=NONE) + b"b"), "did not make"),
    "a state for a dict": (beside(b"}" + mapping(x=NONE) + b"b"), "did not make"),
    "a state for a tensor": (beside(tensor() + mapping(x=NONE) + b"b"), "sets the state of a torch"),
    "two states": (beside(ORDERED + mapping(x=NONE) + b"b" + mapping(x=NONE) + b"b"), "twice"),
    "items for a tensor": (beside(tensor() + text("a") + NONE + b"s"), "puts items into a torch"),
    "items for a list": (beside(b"]" + text("a") + NONE + b"s"), "what is no mapping"),
    "appended to a dict": (beside(b"}" + NONE + b"a"), "what is no list"),
    "added to a list": (beside(b"](" + text("a") + b"\x90"), "what is no set"),
    "a set of tuples": (beside(b"\x8f(" + doubling(40) + b"\x90"), "a set of other things"),
    "a mapping by what takes for ever to hash": (
        beside(b"}" + doubling(60) + NONE + b"s"),
        "by other things than names",
    ),
    # bombs
    "a memo index of 2^31": (whole(b"Nr\xff\xff\xff\x7f"), "something else where a mapping"),
    "settings of 2^60 parts": (settings(doubling(60)), "more steps|without end"),
    "settings of 2^30 parts": (settings(doubling(30)), "more steps"),
    "modules of 2^40 parts": (nested_modules(40), "more steps"),
    "a module in itself": (whole(mapping(G=CYCLE, G_ema=b"h\x08")), "modules nested without end"),
    "modules 100 deep": (chained(100), "modules nested without end"),
    "settings 5,000 deep": (settings(DEEP), "settings nested without end"),
    "lists 5,000 deep, beside": (whole(mapping(G=DEEP, G_ema=module(version=b"K\x05"))), "unknown layout"),
    "tuples 5,000 deep": (whole(b")" + b"\x85" * 5_000), "something else where a mapping"),
    "nothing, a hundred thousand times": (whole(NONE * 100_000), "more steps"),
    "one storage as many tensors": (
        snapshot(
            mapping(
                a=tensor((9000,), where=storage(stored((0.0,) * 9000)) + b"q\x00"),
                **{f"b{i}": tensor((9000,), where=b"h\x00") for i in range(9)},
            )
        ),
        "many times the bytes",
    ),
    # sizes and places
    "bytes of 2^40": (whole(b"\x8e" + struct.pack("<Q", 1 << 40) + b"xx"), "expected"),
    "a file of 2^40": (Vast(whole(NONE)), "more than 4,294,967,296 bytes"),
    "a text of 2^31": (whole(b"X\xff\xff\xff\x7fxx"), "expected"),
    "a storage of 2^62": (weights(data=stored(count=1 << 62)), "storage of an impossible size"),
    "a storage of 2^31": (weights(data=stored(count=1 << 31)), "another number of bytes"),
    "a storage of none": (weights(data=stored((), count=0)), "storage of an impossible size"),
    "a storage of a text": (
        weights(data=stored(identity=persistent(view=NONE).replace(number(3), text("3")))),
        STORAGE,
    ),
    "a storage held to be larger": (weights(data=stored(held=1 << 40)), "another size than it says"),
    "strides outside the storage": (weights(size=(2, 2), stride=(2, 1), data=stored()), OUTSIDE),
    "an offset outside the storage": (weights(offset=1), OUTSIDE),
    "negative strides": (weights(stride=(-1,)), SIZE),
    "a negative offset": (weights(offset=-1), SIZE),
    "2^31 numbers by a stride of 0": (weights(size=(1 << 31,), stride=(0,)), SIZE),
    "2^31 numbers by strides of 0": (weights(size=(3,) * 8, stride=(0,) * 8), OUTSIDE),
    "300 dimensions": (weights(size=(1,) * 300, stride=(1,) * 300), SIZE),
    "more sizes than strides": (weights(size=(3, 1)), SIZE),
    "a size that is a number": (
        snapshot(mapping(a=call("torch._utils _rebuild_tensor_v2", storage(stored()), NONE, NONE, NONE, NONE))),
        "tensor without a size",
    ),
    "a tensor that is a number": (snapshot(mapping(a=b"K\x01")), "a tensor that is none"),
    "a tensor of a number": (snapshot(mapping(a=tensor(where=b"K\x01"))), "tensor without a storage"),
    "bytes that are a number": (
        snapshot(mapping(a=tensor(where=call("torch.storage _load_from_bytes", b"K\x01")))),
        "bytes that are none",
    ),
    "bytes in another coding": (
        snapshot(
            mapping(
                a=tensor(where=call("torch.storage _load_from_bytes", call("_codecs encode", text("x"), text("rot13"))))
            )
        ),
        "unknown coding",
    ),
    "an object for an id": (weights(data=stored(identity=b"K\x01Q")), "no storage"),
    "no storage in a storage": (
        weights(data=stored(identity=mapping(a=persistent()), keys=["0"])),
        "storage that is none",
    ),
    "another word in a storage": (weights(data=stored(identity=persistent(word="module", view=NONE))), STORAGE),
    "another key in a storage": (weights(data=stored(keys=["7", "8"])), "the storages it names"),
    "a number for a key": (weights(data=stored(keys=[7])), "by what is no name"),
    "bytes after a storage": (weights(data=stored(tail=b"x")), "more bytes follow"),
    "another magic": (weights(data=stored(head=header(0, pickle.dumps(3, 2)))), "begin as torch's"),
    "another version": (weights(data=stored(head=header(1, pickle.dumps(3, 2)))), "unknown version"),
    "big-endian": (weights(data=stored(head=header(2, pickle.dumps({"little_endian": False}, 2)))), "little-endian"),
    # numpy
    "an array of objects": (settings(array((1,), kind=dtype("O8"))), "other things than numbers"),
    "a number of objects": (settings(scalar(dtype("O8"), bytes(8))), "other things than numbers"),
    "a big-endian number": (settings(scalar(dtype(order=">"), bytes(8))), "little-endian"),
    "a number without a type": (settings(scalar(NONE, bytes(8))), "what is no type"),
    "a number of the wrong size": (settings(scalar(dtype(), bytes(7))), "another number of bytes"),
    "an array of the wrong size": (settings(array((1 << 40,))), "another number of bytes"),
    "an array of a negative size": (settings(array((-1, -1))), "impossible shape"),
    "an array of 300 dimensions": (settings(array((1,) * 300)), "impossible shape"),
    "an array of shape 1": (settings(array(b"K\x01")), "impossible shape"),
    "an array without a state": (settings(call("numpy._core.multiarray _reconstruct")), "an array that is none"),
    "a tensor among the settings": (settings(tensor()), "an array that is none"),
    "bytes among the settings": (settings(blob(b"x")), "an array that is none"),
    "an array of thousands among the settings": (settings(array((1000,), bytes(8000))), "of great size"),
    # layouts
    "no G_ema": (whole(mapping(G=module())), "no G_ema"),
    "a module that is a dict": (whole(mapping(G_ema=b"}")), "module that is none"),
    "a module with more": (snapshot(extra=NONE), "unknown layout"),
    "a module of another version": (snapshot(version=b"K\x05"), "unknown layout"),
    "a module whose state is an OrderedDict, without settings": (
        snapshot(
            state=ORDERED
            + mapping(_parameters=b"}", _buffers=b"}", _modules=b"}", _non_persistent_buffers_set=b"\x8f")[1:]
        ),
        "something else where a mapping",
    ),
    "a module without names": (snapshot(mapping(**{"a.b": tensor()})), "what is no name"),
    "buffers that are left out by a number": (snapshot(state_non_persistent_buffers_set=b"K\x01"), "a set of names"),
    "buffers that are left out by a call": (
        snapshot(state_non_persistent_buffers_set=call("builtins set", b"](" + doubling(40) + b"e")),
        "a set of no names",
    ),
    "arguments without names": (snapshot(state_init_args=b"K\x01\x85"), "arguments that have no names"),
    "bytes after the pickle": (snapshot() + b"x", "more bytes follow"),
    "three of something": (networks(NONE), "network that is none"),
    "a network of an old version": (networks(version=b"K\x03"), "too old"),
    "a network of no variables": (networks(variables=NONE), "without variables"),
    "a network of odd variables": (
        networks(variables=b"](" + doubling(40) + b"e"),
        "without variables|what is no name",
    ),
    "a network by names that take for ever": (
        networks(variables=b"](" + doubling(40) + NONE + b"\x86e"),
        "without variables",
    ),
    "a network with odd names": (networks(name="a\nb"), "what is no name"),
    "networks 100 deep": (chained_networks(100), "networks nested without end"),
    # zip files
    "a zip of nothing of torch's": (zipped(b"N.", name="archive/other"), "none of torch's"),
    "a compressed bomb": (zipped(whole(NONE * (8 << 20)), compression=zipfile.ZIP_DEFLATED), "compressed"),
    "a big-endian zip": (zipped(whole(b"}"), order=b"big"), "little-endian"),
    "a zip with a storage missing": (zipped_tensor(parts={}), "archive/data/0"),
    "a zip with a storage too short": (zipped_tensor(parts={"0": bytes(8)}), "another number of bytes"),
    "a zip with strides outside": (zipped_tensor(stride=(2,)), OUTSIDE),
    "a zip with storages of another kind": (zipped_tensor(persistent(kind="torch Size")), STORAGE),
    "a zip that is cut": (zipped_tensor()[:-30], "zip"),
    # cut
    "cut in the head": (snapshot()[:40], "."),
    "cut in a tensor": (weights()[:-60], "."),
    "cut before the end": (weights()[:-1], "exhausted|expected"),
    "an empty stack": (whole(b""), "."),
    "a mark that is not there": (whole(b"t"), "."),
    "a memo that is not there": (whole(b"h\x07"), "."),
}

# --- the process ----------------------------------------------------------------------------------------------------


def attempt(data):
    """What comes of reading: "read", or the text of the expected error; anything else is raised."""
    try:
        sys.modules[readers.__name__].read(data, "hostile")
    except GeneratorError as error:
        return error.message
    return "read"


def in_fork(work):
    """What a function gives in a fork of its own under all limits; or what ended it."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        limit()
        forbid(sending)
        try:
            said = work()
        except BaseException as error:  # the report of what should not have happened
            said = f"!{type(error).__name__}: {error}"[:500]
        os.write(sending, said.encode(errors="replace"))
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"!ended with {status}: {said}"


def limit():
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def forbid(sending):
    """End the process at anything that reading bytes in memory does not need: files, imports, code, sockets."""

    def hook(event, arguments):
        if event not in HARMLESS:
            os.write(sending, f"!did {event}: {arguments!r}"[:300].encode(errors="replace"))
            os._exit(3)

    sys.addaudithook(hook)


def guards():
    """Each `need(…)` of the readers: its module, and its place among those there."""
    for module in READERS:
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        count = sum(_is_guard(node) for node in ast.walk(tree))
        yield from ((module, place) for place in range(count))


def _is_guard(node):
    return (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "need"
    )


def without(mutated, place):
    """Bring up the readers anew, one guard of one module taken out; its text."""
    removed = ""
    codes = []
    for module in READERS:
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        if module is mutated:
            guard = [node for node in ast.walk(tree) if _is_guard(node)][place]
            removed = f"{Path(module.__file__).name}:{guard.lineno} {ast.unparse(guard)}"
            guard.value = ast.copy_location(ast.Constant(None), guard.value)
        codes.append((module, compile(tree, module.__file__, "exec")))
    for module, code in codes:
        exec(code, module.__dict__)
    return removed


def first_to_notice(guard):
    """The first case whose outcome is another than it must be; those that ask for the guard's own words first."""
    for name, (data, said) in sorted(CASES.items(), key=lambda case: not re.search(case[1][1], guard)):
        outcome = attempt(data)
        if outcome == "read" or not re.search(said, outcome):
            return f"{name}: {outcome}"
    return ""


def main():
    state = {"w_avg": torch.ones(2)}
    for data in (saved(state), nvlabs_files.pytorch(state, {}), zipped_tensor()):
        attempt(data)  # what is imported at first use is imported now
    if sys.argv[1:] == ["mutations"]:
        found = {}
        for module, place in guards():
            guard = without(module, place)
            found[guard] = in_fork(lambda guard=guard: first_to_notice(guard))
    else:
        found = {name: in_fork(lambda data=data: attempt(data)) for name, (data, _) in CASES.items()}
        found["unpickled"] = in_fork(lambda: pickle.loads(RUNS))  # that all this would catch one
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
