"""Write the pages and tables of docs/ that are made from the code: `make reference`.

docs/reference/cli.md from `--help`, docs/reference/python.md from docstrings, docs/images/architecture.svg and a table
in docs/architecture.md from the imports, and the tables of families and of artifacts. A test compares them.
"""

import ast
import functools
import html
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from typer.testing import CliRunner

import magnet_cli
from magnet_cli.cli.app import app

ROOT = Path(__file__).parents[1]
PACKAGE = Path(magnet_cli.__file__).parent
BOX, ROOM, FLOOR, AROUND = (120, 38), 172, 88, 70  # pixels: a box; from room to room and floor to floor; of a detour
MARGIN = 56


def help_text(command: str) -> str:
    """Return what `magnet COMMAND --help` prints, in lines of at most 80 characters."""
    done = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="magnet", env={"COLUMNS": "80"})
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def command_line() -> str:
    """Return docs/reference/cli.md."""
    commands = [command.name for command in app.registered_commands]
    for group in app.registered_groups:
        commands += [group.name, *(f"{group.name} {one.name}" for one in group.typer_instance.registered_commands)]
    parts = ["# Command line\n\nWhat `--help` prints. This page is made by `make reference`.\n\n## magnet\n"]
    parts += [f"```text\n{help_text('')}\n```\n"]
    parts += [f"## magnet {command}\n\n```text\n{help_text(command)}\n```\n" for command in commands]
    return "\n".join(parts)


MEMBERS = {  # of the classes, what scripts may rely on
    "Generator": ["latent_dim", "num_classes"],
    "Volume": ["open", "num_rows", "latents", "singular_values", "labels", "check"],
    "Index": ["of", "num_rows", "weights", "effective_size", "draw"],
    "Sample": ["open", "latents", "labels", "images"],
}
WIDTH = 100  # characters of a line of a signature
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?):$", re.MULTILINE)
ENTRY = re.compile(r"^(\*{0,2}[\w.]+(?:, [\w.]+)*)(?: \([^)]*\))?: ", re.MULTILINE)


def prose(text: str) -> str:
    """Return text of a docstring as Markdown: examples are blocks, what looks like a tag stays text."""
    paragraphs = (one if one.startswith(">>>") else one.replace("<", "&lt;") for one in text.strip().split("\n\n"))
    blocks = (f"```pycon\n{one}\n```" if one.startswith(">>>") else one for one in paragraphs)
    return re.sub(r"docs/method\.md#([\w-]+)", r"[method: \1](../method.md#\1)", "\n\n".join(blocks))


def section(name: str, body: str) -> str:
    """Return a section of a docstring, and the text that follows, as Markdown."""
    end = re.search(r"^\S", body, re.MULTILINE)
    inside, after = (body[: end.start()], body[end.start() :]) if end else (body, "")
    inside = inspect.cleandoc(inside)
    if name in {"Args", "Attributes", "Raises"}:
        entries = ENTRY.split(inside)[1:]
        pairs = zip(entries[::2], entries[1::2], strict=True)
        inside = "\n".join(f"- `{entry}`: {' '.join(about.split())}" for entry, about in pairs)
    return f"**{name}**\n\n{prose(inside)}\n\n{prose(after)}".rstrip()


def docstring(text: str) -> str:
    """Return a docstring in Google's style as Markdown."""
    summary, *rest = SECTION.split(inspect.cleandoc(text))
    sections = (section(name, body) for name, body in zip(rest[::2], rest[1::2], strict=True))
    return "\n\n".join([prose(summary), *sections])


def signature(name: str, function: Callable) -> str:
    """Return a signature, its types without their modules."""
    text = (
        f"{name}{inspect.signature(function)}".replace("(self, ", "(").replace("(self)", "()").replace("numpy.", "np.")
    )
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", re.sub(r"= <[^>]*>", "= ...", text))
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)
    if len(text) <= WIDTH:
        return text
    opening, _, rest = text.partition("(")
    inside, closing, result = rest.rpartition(") -> ")
    parameters = re.split(r", (?![^\[(]*[\])])", inside)  # at commas outside brackets
    return "\n".join([f"{opening}(", *(f"    {parameter}," for parameter in parameters), f"{closing}{result}"])


def entry(level: str, name: str, thing: object, *, called: bool = True) -> str:
    """Return the part of the page for one name: its signature, where it is called, and its docstring."""
    block = f"```py\n{signature(name.rpartition('.')[2], thing)}\n```\n\n" if called else ""
    return f"{level} {name}\n\n{block}{docstring(thing.__doc__ or '')}\n"


def members(name: str, kind: object) -> Iterator[str]:
    """Yield the part of each promised member of a class."""
    for member in MEMBERS.get(name, []):
        attribute = getattr(kind, member)
        yield entry("###", f"{name}.{member}", attribute, called=callable(attribute))


def python() -> str:
    """Return docs/reference/python.md."""
    parts = [
        "# Python\n\nThe public names of `magnet_cli`. This page is made from their docstrings by `make reference`.\n"
    ]
    for name in magnet_cli.__all__:
        thing = getattr(magnet_cli, name)
        parts.append(entry("##", name, thing, called=not inspect.isclass(thing)))
        parts += members(name, thing)
    return "\n".join(parts)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def families_table() -> str:
    """Return the table of what each family supports, as `magnet list --families` has it."""
    listed = json.loads(CliRunner().invoke(app, ["list", "--families", "--json"]).stdout)["families"]
    head = ["family", "spaces", "outputs", "conditional", "truncation acts on", "prior", "checkpoints"]
    rows = [
        [
            f"`{family['family']}`",
            ", ".join(family["spaces"]),
            ", ".join(family["outputs"]),
            family["conditional"],
            family["truncation"] or "nothing",
            family["prior"],
            ", ".join(family["formats"]),
        ]
        for family in listed
    ]
    return table(head, rows)


def artifacts_table() -> str:
    """Return the table of what `magnet fetch` can get."""
    listed = tomllib.loads((ROOT / "artifacts.toml").read_text(encoding="utf-8"))
    rows = [
        [
            f"`{name}`",
            one["kind"],
            one.get("family") or one["generator"],
            one["license"] + ", non-commercial" * (not one.get("commercial_use", True)),
            "yes" if "sha256" in one else "no",
        ]
        for name, one in listed.items()
    ]
    return table(["name", "kind", "family or generator", "licence", "pinned"], rows)


def floors(page: str) -> list[list[str]]:
    """Return the rooms of each floor, the highest first, as the drawing in docs/architecture.md has them."""
    drawing = page.partition("<!-- begin floors -->")[2].partition("<!-- end floors -->")[0]
    lines = [line for line in drawing.splitlines() if line[:1].isalpha()]
    return [line.partition("  ")[0].split(" · ") for line in lines]


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return the rooms that each room imports, inside functions too; itself left out."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        others = {name.split(".")[1] for name in names if name.startswith("magnet_cli.")}
        graph.setdefault(room, set()).update(others - {room, "__version__"})
    return {room: others for room, others in graph.items() if not room.startswith("__")}


def imports_table(storeys: list[list[str]]) -> str:
    """Return the table of which room imports which."""
    graph, order = imports(), [room for rooms in storeys for room in rooms]
    rows = [[f"`{room}`", ", ".join(sorted(graph[room], key=order.index)) or "nothing"] for room in order]
    return table(["room", "imports"], rows)


def direct(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return a graph without the edges that a longer path implies."""

    def beyond(start: str, without: str) -> set[str]:
        reached, waiting = set(), [start]
        while waiting:
            new = graph[waiting.pop()] - reached - {without}
            reached |= new
            waiting += new
        return reached

    return {
        room: {other for other in others if not any(other in beyond(via, room) for via in others - {other})}
        for room, others in graph.items()
    }


def drawing(storeys: list[list[str]]) -> str:
    """Return the drawing of floors and imports as SVG: an arrow for each import that no longer path implies."""
    width = max(map(len, storeys)) * ROOM - (ROOM - BOX[0]) + 2 * MARGIN
    height = len(storeys) * FLOOR - (FLOOR - BOX[1]) + 2 * MARGIN
    place = {
        room: ((width - (len(rooms) - 1) * ROOM - BOX[0]) / 2 + i * ROOM, MARGIN + j * FLOOR)
        for j, rooms in enumerate(storeys)
        for i, room in enumerate(rooms)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="sans-serif" font-size="15">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
    ]
    for room, others in direct(imports()).items():
        for other in sorted(others):
            (x, y), (u, v) = place[room], place[other]
            if y == v:
                side = BOX[0] if u > x else 0
                curve = f"M{x + side:g} {y + BOX[1] / 2:g}H{u + BOX[0] - side:g}"
            elif v - y == FLOOR:
                start, end = f"{x + BOX[0] / 2:g}", f"{u + BOX[0] / 2:g}"
                curve = f"M{start} {y + BOX[1]:g}C{start} {y + BOX[1] + 36:g} {end} {v - 36:g} {end} {v:g}"
            else:  # around what stands between, on the side of the lower room
                right = u + BOX[0] / 2 >= width / 2
                side, bulge = (BOX[0], AROUND) if right else (0, -AROUND)
                start, end = (x + side, y + BOX[1] / 2), (u + side, v + BOX[1] / 2)
                curve = f"M{start[0]:g} {start[1]:g}C{start[0] + bulge:g} {start[1]:g} {end[0] + bulge:g} {end[1]:g} "
                curve += f"{end[0]:g} {end[1]:g}"
            lines.append(f'<path d="{curve}" fill="none" stroke="#667" marker-end="url(#head)"/>')
    for room, (x, y) in place.items():
        lines += [
            f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef2fb" stroke="#345"/>',
            f'<text x="{x + BOX[0] / 2:g}" y="{y + BOX[1] / 2 + 5:g}" text-anchor="middle">{html.escape(room)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def filled(page: str, name: str, content: str) -> str:
    """Return a page with the generated part `name` replaced."""
    begin, end = f"<!-- begin generated: {name} -->\n", f"<!-- end generated: {name} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the page has no part between {begin.strip()} and {end}")
    return f"{before}{begin}{content}\n{end}{after}"


def pages() -> dict[str, str]:
    """Return the text of each page that is made, or has a part that is made, by its path."""

    def text(name: str) -> str:
        return (ROOT / name).read_text(encoding="utf-8")

    storeys = floors(text("docs/architecture.md"))
    return {
        "docs/reference/cli.md": command_line(),
        "docs/reference/python.md": python(),
        "docs/reference/families.md": filled(text("docs/reference/families.md"), "families", families_table()),
        "docs/reference/catalogue.md": filled(text("docs/reference/catalogue.md"), "artifacts", artifacts_table()),
        "docs/architecture.md": filled(text("docs/architecture.md"), "imports", imports_table(storeys)),
        "docs/images/architecture.svg": drawing(storeys),
    }


if __name__ == "__main__":
    for name, content in pages().items():
        (ROOT / name).write_text(content, encoding="utf-8")
