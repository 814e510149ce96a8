"""Parsers and checks of what is typed after a flag; a wrong value is a usage error (typer.BadParameter, exit 2)."""

import json
import math
import re
from dataclasses import dataclass

import typer

from magnet_cli.errors import SpecError

_LARGEST = 1e30


@dataclass(frozen=True)
class ClassLabel:
    """A class as the command line names it; `name` is empty where a number was typed."""

    number: int
    name: str = ""


def class_label(text: str) -> ClassLabel:
    """Return the class of a number, as "281", or of an ImageNet name, as "tabby"."""
    from magnet_cli.catalog import imagenet

    if re.fullmatch(r"-?\d+", text):
        if int(text) < 0:
            raise typer.BadParameter(f"{text} is not the number of a class.")
        return ClassLabel(int(text))
    try:
        return ClassLabel(imagenet.number(text), text)
    except SpecError as error:
        raise typer.BadParameter(f"{error.message}; {error.hint}") from error


def device(value: str | None) -> str | None:
    """Return the name of a device: cpu, cuda, cuda:N or mps."""
    kind, _, number = (value or "cpu").partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (":" in (value or "") and not (kind == "cuda" and number.isdigit())):
        raise typer.BadParameter(f"{value!r} is not a device; pass cpu, cuda, cuda:N or mps.")
    return value


def devices(value: str | None) -> str | None:
    """Return one device, "all", or different devices with commas between, as "cuda:0,cuda:1"."""
    names = (value or "cpu").split(",")
    if len(names) == 1:
        return value if value == "all" else device(value)
    if len(set(names)) < len(names) or not all(re.fullmatch(r"cuda:\d+", name) for name in names):
        raise typer.BadParameter(f"{value!r} is not a list of different devices; pass all, or some as cuda:0,cuda:1.")
    return value


def part(text: str) -> tuple[int, int]:
    """Return (I, N) of "I/N", 1 ≤ I ≤ N."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise typer.BadParameter(f"{text!r} is not a part I/N with 1 <= I <= N, as 3/8.")
    return int(match[1]), int(match[2])


def setting(text: str) -> tuple[str, object]:
    """Return name and value of "final=sigmoid" or "paddings=[0,1,1,3]"; what is no JSON is a text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, as final=sigmoid.")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def truncation(value: float | None) -> float | None:
    """Return ψ, 0 < ψ ≤ 1."""
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"{value} is not in the range 0<x<=1; 1 is no truncation.")
    return value


def truncations(text: str) -> tuple[float, ...]:
    """Return each ψ in (0, 1] of a list as "1,.7,.5"."""
    try:
        values = tuple(float(each) for each in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number, or several as 1,.7,.5.") from error
    for value in values:
        truncation(value)
    return values


def rhos(text: str) -> tuple[float, ...]:
    """Return each rho of a list as "-1,-.3,.3,1", and 0, ascending."""
    try:
        values = {0.0} | {float(each) for each in text.split(",")}
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number, or several as -1,-.3,.3,1.") from error
    return tuple(sorted(map(rho, values)))


def rho(value: float) -> float:
    """Return rho, a number whose size is at most LARGEST_RHO."""
    from magnet_cli.sampling.kinds import LARGEST_RHO

    if not abs(value) <= LARGEST_RHO:
        raise typer.BadParameter(f"{value} is not in the range {-LARGEST_RHO:.0f}<=x<={LARGEST_RHO:.0f}.")
    return value


def share(value: float | None) -> float | None:
    """Return a number between 0 and 1, both excluded."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not in the range 0<x<1.")
    return value


def positive(value: float | None) -> float | None:
    """Return a finite number above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not a positive number.")
    return value


def size(text: str) -> int:
    """Return the number of bytes of "512MiB", "2GB" or a plain number."""
    units = {"": 1, "b": 1} | {f"{u}b": 1000**i for i, u in enumerate("kmgt", 1)}
    units |= {f"{u}ib": 1024**i for i, u in enumerate("kmgt", 1)}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in units or float(match[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is not a number of bytes, as 512MiB or 2GB.")
    return int(float(match[1]) * units[match[2]])


def bounds(text: str) -> tuple[float, float]:
    """Return two numbers, the lower first, of "LO,HI"; they are of a size that float32 has room for."""
    try:
        low, high = (float(each) for each in text.split(","))
    except ValueError:
        low = high = math.nan
    if not -_LARGEST < low < high < _LARGEST:
        raise typer.BadParameter(f"{text!r} is not a lower and a higher number, as 0,1.")
    return low, high
