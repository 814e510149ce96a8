"""The tables [NAME.preprocess] and [NAME.outputs] of an image model's entry in artifacts.toml."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields

CHANNELS = ("L", "RGB", "BGR")
RESIZES = ("none", "bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the input of a network.

    Attributes:
        size: side of the input in pixels; 0 for that of the images.
        crop: central share of each side that is kept before resizing, in (0, 1].
        resize: how; "none" where images have to be of that size already.
        antialias: whether a reduced image is smoothed first, as Pillow does.
        channels: "L", "RGB" or "BGR"; images of one channel are repeated.
        range: what black and white become, before mean and std.
        mean: taken from each channel, or from all where it is one number.
        std: each channel is divided by it, or all where it is one number.
    """

    size: int = 0
    crop: float = 1.0
    resize: str = "bilinear"
    antialias: bool = True
    channels: str = "RGB"
    range: tuple[float, ...] = (-1.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a network mean.

    Attributes:
        features: the name of its output of features; empty where it has none.
        scores: the name of its output of a score a class; empty where it has none.
        softmax: whether probabilities are the softmax of these scores; otherwise they are the scores.
        classes: names of the classes, in the order of the scores; of groups of them where `starts` is given.
        starts: of each group, its first class; the groups follow each other.
    """

    features: str = ""
    scores: str = ""
    softmax: bool = False
    classes: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()


_LISTS = {"range": float, "mean": float, "std": float, "classes": str, "starts": int}  # of what they are


def preprocess(table: dict) -> Preprocess:
    """Return the fields of a table [NAME.preprocess] without mistakes."""
    return Preprocess(**_frozen(table))


def outputs(table: dict) -> Outputs:
    """Return the fields of a table [NAME.outputs] without mistakes."""
    return Outputs(**_frozen(table))


def problems(entry: dict) -> Iterator[tuple[str, str]]:
    """Yield the mistakes in the two tables of an entry as pairs (field, text)."""
    for name, form in (("preprocess", Preprocess), ("outputs", Outputs)):
        table = entry.get(name, {})
        if table and entry.get("kind") != "image-model":
            yield name, "is for image models alone"
        yield from ((f"{name}.{field}", wrong) for field, wrong in _types(table, form))
    yield from _preprocess_values(entry.get("preprocess", {}))
    yield from _outputs_values(entry.get("outputs", {}))


def _frozen(table: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}


def _is(value: object, kind: type) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)


def _types(table: dict, form: type) -> Iterator[tuple[str, str]]:
    types = {f.name: f.type for f in fields(form)}
    for name, value in table.items():
        if name not in types:
            yield name, f"unknown field; the fields are {', '.join(types)}"
        elif name in _LISTS:
            if not (isinstance(value, list) and all(_is(each, _LISTS[name]) for each in value)):
                yield name, f"{value!r} is not a list of {_LISTS[name].__name__}"
        elif not _is(value, typing.cast("type", types[name])):
            yield name, f"{value!r} is not of type {getattr(types[name], '__name__', types[name])}"


def _preprocess_values(table: dict) -> Iterator[tuple[str, str]]:
    if next(_types(table, Preprocess), None):
        return
    how = preprocess(table)
    rules = {
        "size": (how.size >= 0, "is not a number of pixels, or 0"),
        "crop": (0 < how.crop <= 1, "is not in (0, 1]"),
        "resize": (how.resize in RESIZES, f"is not one of {', '.join(RESIZES)}"),
        "channels": (how.channels in CHANNELS, f"is not one of {', '.join(CHANNELS)}"),
        "range": (len(how.range) == 2 and how.range[0] < how.range[-1], "is not a lower and a higher number"),
        "mean": (len(how.mean) in {1, len(how.channels)}, "is not one number, nor one a channel"),
        "std": (
            len(how.std) in {1, len(how.channels)} and min(how.std) > 0,
            "is not one number > 0, nor one a channel",
        ),
    }
    yield from (
        (f"preprocess.{name}", f"{table.get(name)!r} {what}") for name, (right, what) in rules.items() if not right
    )


def _outputs_values(table: dict) -> Iterator[tuple[str, str]]:
    if next(_types(table, Outputs), None):
        return
    meaning = outputs(table)
    if meaning.starts and (len(meaning.starts) != len(meaning.classes) or not _ascends(meaning.starts)):
        yield "outputs.starts", "is not one class for each name in classes, from 0 and ascending"
    if len(set(meaning.classes)) < len(meaning.classes):
        yield "outputs.classes", "names a class twice"
    if bool(meaning.scores) != bool(meaning.classes):
        yield "outputs.classes", "scores and classes go together"


def _ascends(starts: tuple[int, ...]) -> bool:
    return starts[0] == 0 and list(starts) == sorted(set(starts))
