"""What the user may name a generator by: an artifact, the path of a checkpoint, or a factory of their own."""

import ast
import contextlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.errors import ArtifactError
from magnet_cli.files.text import quoted

_FACTORY = re.compile(r"(.+?):([^\W\d]\w*)(\(.*\))?", re.DOTALL)
OWN_SETTINGS = ("latent_dim", "prior", "image_range", "key")  # that a module of the user's own may not say itself
_LONGEST = 40  # characters of a factory's arguments in its name
_MOST_NAMES = 12  # that an error lists


@dataclass(frozen=True)
class Factory:
    """A function of the user's own and what it is called with.

    `place` is a file, "own.py", or a module, "package.module"; `function` is its name there.
    """

    place: str
    function: str
    args: tuple[object, ...] = ()
    kwargs: tuple[tuple[str, object], ...] = ()

    @property
    def name(self) -> str:
        """Name for folders: file or module, function and arguments."""
        place = Path(self.place).stem if self.is_file else self.place.rpartition(".")[2]
        arguments = re.findall(r"[\w.]+", " ".join(map(str, (*self.args, *itertools.chain(*self.kwargs)))))
        return "-".join(filter(None, (place, self.function, "-".join(arguments)[:_LONGEST])))

    @property
    def is_file(self) -> bool:
        """Whether the place is a file, not a module."""
        return self.place.endswith(".py")


def is_factory(reference: str) -> bool:
    """Return whether a reference names a factory, as "file.py:factory" or "file.py:factory(3)", and no file does.

    Raises:
        ArtifactError: a file of Python code is named without a function; the hint lists those that it has.
    """
    if Path(reference).exists():
        if reference.endswith(".py") and Path(reference).is_file():
            message = f"{reference} is Python code, and the name of a function in it is missing"
            raise ArtifactError(message, f"pass {reference}:NAME; {names_in(reference)}")
        return False
    return _FACTORY.fullmatch(reference) is not None


def factory(reference: str) -> Factory:
    """Return the parts of a factory's reference; arguments in parentheses are literals of Python.

    Raises:
        ArtifactError: that is no reference of a factory, or an argument is no literal.
    """
    match = _FACTORY.fullmatch(reference)
    if match is None:
        raise ArtifactError(f"{reference} names no function", "pass file.py:factory or module:factory")
    place, function, arguments = match.groups()
    try:
        call = ast.parse(f"f{arguments or '()'}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise TypeError  # as of "(1)(2)"
        args = tuple(ast.literal_eval(each) for each in call.args)
        kwargs = tuple((str(each.arg), ast.literal_eval(each.value)) for each in call.keywords if each.arg)
        if len(kwargs) < len(call.keywords):
            raise TypeError  # ** has no name
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        message = f"the arguments in {reference} are not literals of Python, which nothing is run for"
        hint = f"pass numbers, texts in quotes or lists of them: '{place}:{function}(64, name=\"x\")'"
        raise ArtifactError(message, hint) from error
    return Factory(place, function, args, kwargs)


def typed(command: list[str], name: str) -> str:
    """Return how a command line has the user's own generator of that name, its flags too; empty if it has not."""
    for word in filter(_FACTORY.fullmatch, command):
        with contextlib.suppress(ArtifactError):
            if factory(word).name == name:
                flags = {f"--{setting.replace('_', '-')}" for setting in OWN_SETTINGS}
                pairs = [pair for pair in itertools.pairwise(command) if pair[0] in flags]
                return " ".join(map(quoted, (word, *itertools.chain(*pairs))))
    return ""


def names_in(path: str) -> str:
    """Return the functions and classes at the top of a file of Python code, as text; nothing of it is run."""
    try:
        body = ast.parse(Path(path).read_bytes()).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return "it cannot be parsed"
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    lambdas = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)]
    names += [target.id for node in lambdas for target in node.targets if isinstance(target, ast.Name)]
    shown = ", ".join(names[:_MOST_NAMES]) + f" and {len(names) - _MOST_NAMES} more" * (len(names) > _MOST_NAMES)
    return f"it has {shown or 'no functions or classes'}"
