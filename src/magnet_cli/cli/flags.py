"""Groups of flags: a command takes frozen dataclasses, Typer reads their fields, a request takes them by name.

And the way back: arguments that a message names in backticks are shown as the flags of the running command.
"""

import ast
import contextlib
import copy
import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, TypeVar

from magnet_cli.cli.parsers import ClassLabel

R = TypeVar("R")
_ARGUMENT = re.compile(r"`([a-z_]\w*)(?:=([^`]*))?`")


def flatten(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of flags: parameters whose annotation is a frozen dataclass.

    Typer sees the fields of a group in the place of the group. `PANEL` of a group is the heading of its fields in
    --help; a field's own heading goes before it.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in parameters if dataclasses.is_dataclass(p.annotation)}
    flat = [inner for p in parameters for inner in (_fields(p.annotation) if p.name in groups else [_keyword(p)])]

    @functools.wraps(command)
    def run(**values: object) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    parameters = []
    for field in dataclasses.fields(group):
        kind, info = typing.get_args(hints[field.name])
        info = copy.copy(info)
        info.rich_help_panel = info.rich_help_panel or group.PANEL
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        annotation: Any = typing.Annotated.__class_getitem__((kind, info))  # type: ignore[attr-defined]
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return parameters


def request(kind: type[R], *groups: object, **values: object) -> R:
    """Build a request: its fields from groups of flags by name, and from `values`, which go before those of the groups.

    Flags that the request has no field for are left out; choices become plain values.
    """
    names = {field.name for field in dataclasses.fields(typing.cast("Any", kind))}
    fields = {f.name: getattr(group, f.name) for group in groups for f in dataclasses.fields(typing.cast("Any", group))}
    return kind(**{k: plain(v) for k, v in ({k: v for k, v in fields.items() if k in names} | values).items()})


def plain(value: object) -> Any:
    """Return what was typed as a plain value: a choice as its name, a class as number or name, a list as a tuple."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, ClassLabel):
        return value.name or value.number
    return tuple(plain(each) for each in value) if isinstance(value, list | tuple) else value


class FlagNames:
    """The flags of a command, by the names of the arguments that messages use."""

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        self._parameters: dict[str, Any] = {}
        for parameter in parameters:
            names = {parameter.name, max(parameter.opts, key=len).lstrip("-").replace("-", "_")}
            self._parameters |= dict.fromkeys(names, parameter)

    def shown(self, text: str) -> str:
        """Return a message with arguments in backticks as flags: `top_k=20` as --top-k 20, `replace=True` as --replace.

        What is no argument of this command stays as it is.
        """
        return _ARGUMENT.sub(self._flag, text)

    def _flag(self, match: re.Match) -> str:
        parameter, text = self._parameters.get(match[1]), match[2]
        if parameter is None:
            return match[0]
        flag = max(parameter.opts, key=len)
        if parameter.param_type_name == "argument":
            flag = text or parameter.metavar or parameter.name.upper()
        elif text is not None and parameter.is_flag:
            flag = flag if text == "True" else (*parameter.secondary_opts, f"no {flag}")[0]
        elif text is not None:
            values = [text]
            with contextlib.suppress(ValueError, SyntaxError):  # a placeholder, as FILE.npy
                value = ast.literal_eval(text)
                values = [str(each) for each in value] if isinstance(value, tuple | list) else [str(value)]
            flag = " ".join(f"{flag} {each}" for each in (values if parameter.multiple else [",".join(values)]))
        return flag
