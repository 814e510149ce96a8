"""Read pickles as data: opcodes in, a tree of plain values out; nothing is imported, called or constructed.

These are the opcodes that picklers of protocols 2 to 5 write, with a limit on their cost. Python's own unpickler takes
no part: there is nothing here that a pickle could make run.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, BinaryIO, cast

MAX_STEPS = 4_000_000  # opcodes and objects visited; the largest checkpoints with their optimisers have about a million
_FREE_STEPS = 10_000  # plus one for every two bytes, about twice what picklers need
MAX_DEPTH = 64  # of nested objects
MAX_BYTES = 4 << 30  # of a file
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "SHORT_BINSTRING"),
}
_EMPTY: dict[str, Callable[[], object]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "NONE": lambda: None,
}


Node = Any  # of the tree that `parse` returns: whoever reads the tree checks every node


def need(fact: bool, otherwise: str) -> None:
    """Raise UnpicklingError with the text `otherwise` unless `fact` is true: the guard of every reader here."""
    if not fact:
        raise UnpicklingError(otherwise)


@dataclass(eq=False, repr=False)
class Global:
    """The name of something that a pickle asks to import, as "module name"; it is never imported."""

    name: str


@dataclass(eq=False, repr=False)
class Object:
    """The description of an object that a pickle asks to make, by a call of the global `origin`; it is never made."""

    origin: str
    arguments: tuple
    state: object = None
    items: dict | None = None


class Budget:
    """A limit on the cost of reading a file of `size` bytes; its storages and tensors may take four times as many."""

    def __init__(self, size: int) -> None:
        need(size <= MAX_BYTES, f"it has more than {MAX_BYTES:,} bytes")
        self._steps, self._bytes = min(MAX_STEPS, _FREE_STEPS + size // 2), 4 * size

    def step(self) -> None:
        """Count one opcode, or one object visited."""
        self._steps -= 1
        need(self._steps >= 0, "it takes more steps to read than its size explains")

    def take(self, size: int) -> None:
        """Count the bytes of a tensor or a storage."""
        self._bytes -= size
        need(self._bytes >= 0, "its tensors take many times the bytes that are in it")


def parse(
    file: BinaryIO,
    allowed: Mapping[str, set[str]],
    budget: Budget,
    outside: Callable[[Node], object] | None = None,
    *,
    lenient: bool = False,
) -> Node:
    """Return the tree that one pickle describes, and leave the file after the pickle's end.

    `allowed` maps the globals that the pickle may have to the opcodes that may act on each; `outside` maps the id of an
    object outside the file to what stands for it. Nodes are None, bool, int, float, str, bytes; tuples, lists, sets of
    strings, and dicts by str of such (an int as a key becomes its digits); Global, Object, and results of `outside`.
    They may be shared, and may contain themselves. `lenient` is for files with other things beside the weights: what
    has no place in the tree (items by other keys, members of sets that are no strings, items of unknown lists) is left
    out instead of refused.

    Raises:
        UnpicklingError: an opcode or a global is not allowed, or the budget is exceeded.
        ValueError, LookupError: the pickle is damaged.
    """
    machine = _Machine(allowed, outside, lenient=lenient)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # escapes in the strings of a damaged pickle
        for opcode, argument, _ in pickletools.genops(file):
            budget.step()
            machine.step(opcode.name, argument)
    return machine.pop()


class _Machine:
    def __init__(
        self, allowed: Mapping[str, set[str]], outside: Callable[[Node], object] | None, *, lenient: bool
    ) -> None:
        self.allowed, self.outside, self.lenient = allowed, outside, lenient
        self.steps = _STEPS | _LENIENT_STEPS if lenient else _STEPS
        self.count = 0  # of opcodes
        self.stack: list[Node] = []
        self.outer: list[list] = []  # the stacks below each mark
        self.memo: dict[int, Node] = {}

    def pop(self) -> Node:
        return self.stack.pop()

    def step(self, name: str, argument: Node) -> None:
        self.count += 1
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        else:
            need(name in self.steps, f"it has the opcode {name}, which weights have no use for")
            self.steps[name](self, argument)

    def nothing(self, _: Node) -> None:
        """Skip PROTO, FRAME and STOP."""

    def mark(self, _: Node) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def marked(self) -> list:
        """Return what is above the last mark, and remove it."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def put(self, index: int) -> None:
        # picklers count; any other numbers could be chosen to collide in the table
        need(index <= self.count, "it numbers its objects beyond its own length")
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Node) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def tuple_of_marked(self, _: Node) -> None:
        items = self.marked()
        self.stack.append(tuple(items))

    def append(self, items: list) -> None:
        target = self.stack[-1]
        if isinstance(target, Object) and "APPENDS" in self.allowed[target.origin]:
            return  # nobody reads it
        need(isinstance(self.stack[-1], list), "it appends to what is no list")
        self.stack[-1].extend(items)

    def add(self, _: Node) -> None:
        items = self.marked()
        need(isinstance(self.stack[-1], set), "it adds to what is no set")
        self.stack[-1].update(self.names(items))

    def frozen(self, _: Node) -> None:
        self.stack.append(self.names(self.marked()))

    def names(self, items: list) -> set[str]:
        names = {item for item in items if isinstance(item, str)}
        need(self.lenient or len(names) == len(items), "it has a set of other things than names")
        return names

    def set_items(self, pairs: list) -> None:
        target = self.stack[-1]
        if isinstance(target, Object):
            need("SETITEMS" in self.allowed[target.origin], f"it puts items into a {target.origin}")
            target.items = {} if target.items is None else target.items
            target = target.items
        need(isinstance(target, dict), "it puts items into what is no mapping")
        # Nothing else is a key: the hash of a nested tuple can take for ever, and ints can be chosen to collide.
        named = [(str(k), v) for k, v in zip(pairs[::2], pairs[1::2], strict=True) if type(k) in {str, int}]
        need(self.lenient or 2 * len(named) == len(pairs), "it has a mapping by other things than names")
        target.update(named)

    def name_global(self, name: str) -> None:
        need(name in self.allowed, f"it names {name[:80].replace(' ', '.')!r}, which weights have no use for")
        self.stack.append(Global(name))

    def name_global_from_stack(self, _: Node) -> None:
        name, module = self.pop(), self.pop()
        need(isinstance(name, str) and isinstance(module, str), "it names a global by what is no name")
        self.name_global(f"{module} {name}")

    def make(self, opcode: str) -> None:
        arguments, target = self.pop(), self.pop()
        need(isinstance(target, Global), "it calls what is not named by a global")
        need(isinstance(arguments, tuple), "it calls with what are no arguments")
        need(opcode in self.allowed[target.name], f"it makes an object of {target.name} by {opcode}")
        self.stack.append(Object(target.name, arguments))

    def make_by_keywords(self, _: Node) -> None:
        self.pop()
        self.make("NEWOBJ")

    def build(self, _: Node) -> None:
        state, target = self.pop(), self.stack[-1]
        need(isinstance(target, Object), "it sets the state of what it did not make")
        need("BUILD" in self.allowed[target.origin], f"it sets the state of a {target.origin}")
        need(target.state is None, f"it sets the state of one {target.origin} twice")
        target.state = state

    def persist(self, _: Node) -> None:
        need(self.outside is not None, "it names an object outside of it")
        self.stack.append(cast(Callable, self.outside)(self.pop()))


_STEPS: dict[str, Callable[[_Machine, Node], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _Machine.nothing),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "REDUCE": lambda machine, _: machine.make("REDUCE"),
    "NEWOBJ": lambda machine, _: machine.make("NEWOBJ"),
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "TUPLE": _Machine.tuple_of_marked,
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.marked()),
    "ADDITEMS": _Machine.add,
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.marked()),
    "GLOBAL": _Machine.name_global,
    "STACK_GLOBAL": _Machine.name_global_from_stack,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persist,
}
_LENIENT_STEPS: dict[str, Callable[[_Machine, Node], None]] = {
    "NEWOBJ_EX": _Machine.make_by_keywords,
    "FROZENSET": _Machine.frozen,
}
