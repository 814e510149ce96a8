"""Build an HTML page with its style in one file that loads nothing and runs nothing.

Every function takes plain text, numbers or image bytes and returns escaped markup; only SVG of `files.plots` is
taken as markup.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from magnet_cli import __version__
from magnet_cli.files import themed_svg
from magnet_cli.files.text import visible

Cell = str | tuple[str, str]  # text, or text with something small below it
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="magnet $version">
$marks
<title>$title</title>
<link rel="icon" href="data:,">
<style>:root{$light}
@media screen and (prefers-color-scheme:dark){:root{$dark}}
$style</style>
</head>
<body>
<header>
<p class="kind">$kind</p>
<h1>$title</h1>
<p class="lead">$lead</p>
</header>
<main>
$body
</main>
<footer>magnet $version. This page loads nothing and runs nothing: it can be kept, sent and printed as it is.</footer>
</body>
</html>
""")


def document(title: str, kind: str, lead: str, body: Sequence[str], marks: dict[str, str]) -> bytes:
    """Return a whole page: `lead` stands below the heading; `marks` is metadata that `mark` reads back."""
    metas = "\n".join(f'<meta name="magnet-{name}" content="{escape(value)}">' for name, value in marks.items())
    texts = {"title": title, "kind": kind, "lead": lead, "version": __version__, "policy": _POLICY}
    own = {"marks": metas, "body": "\n".join(body), "style": _STYLE, "light": themed_svg.LIGHT, "dark": themed_svg.DARK}
    return _PAGE.substitute({name: escape(text, quote=False) for name, text in texts.items()} | own).encode()


def mark(page: bytes, name: str) -> str | None:
    """Return the metadata of that name in a page; None if there is none, or the page is not from magnet."""
    start = f'<meta name="magnet-{name}" content="'.encode()
    head = page.partition(b"<style>")[0]
    _, found, rest = head.partition(start)
    return rest.partition(b'"')[0].decode(errors="replace") if found else None


def escape(text: str, *, quote: bool = True) -> str:
    """Return text as markup, with control and bidirectional characters shown as such."""
    return html.escape(visible(text), quote)


def section(heading: str, *parts: str) -> str:
    """Return a section with its heading."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def missing(text: str) -> str:
    """Return a note on why something is not shown, and how to show it."""
    return f'<p class="missing">{escape(text)}</p>'


def tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """Return large numbers, each above its label."""
    each = (f"<div><dd>{escape(value)}</dd><dt>{escape(label)}</dt></div>" for value, label in numbers)
    return f'<dl class="tiles">{"".join(each)}</dl>'


def facts(terms: Sequence[tuple[str, str]]) -> str:
    """Return a list of terms and texts, one line each."""
    each = (f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in terms)
    return f'<dl class="facts">{"".join(each)}</dl>'


def figure(svg: str, caption: str) -> str:
    """Return a plot from `files.plots` above its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(png: bytes, text: str, caption: str) -> str:
    """Return a large image (PNG) with an alternative text, above its caption."""
    shown = f'<img class="sheet" src="{_data(png)}" alt="{escape(text)}">'
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def strip(images: Sequence[tuple[bytes, str]], caption: str = "", *, most: int = 16) -> str:
    """Return small images (PNG) with alternative texts in rows of at most `most`, above their caption."""
    each = (f'<img src="{_data(png)}" alt="{escape(text)}" title="{escape(text)}">' for png, text in images)
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="images"><div style="--most:{most}">{"".join(each)}</div>{below}</figure>'


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """Return a table; the first column names the rows, the others hold numbers."""
    names = (escape(name).replace("[", "<wbr>[").replace("_", "_<wbr>") for name in header)  # where a line may end
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    lines = []
    for first, *rest in rows:
        cells = f'<th scope="row">{_cell(first)}</th>' + "".join(f"<td>{_cell(cell)}</td>" for cell in rest)
        lines.append(f"<tr>{cells}</tr>")
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "\n".join(lines)
    return f'<div class="table"><table>{above}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    text, small = (cell, "") if isinstance(cell, str) else cell
    return escape(text) + (f"<small>{escape(small)}</small>" if small else "")


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
