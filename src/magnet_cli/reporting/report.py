"""The file of a report: one HTML page of a volume, a sample or a sweep, which loads nothing and runs nothing."""

import re
from dataclasses import dataclass
from pathlib import Path

from magnet_cli import __version__
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents, opening
from magnet_cli.files.locks import FileLock
from magnet_cli.reporting import page

FORMAT = 2


@dataclass(frozen=True)
class Subject:
    """The volume, sample or sweep that a report shows.

    Attributes:
        kind: "volume", "sample" or "sweep".
        name: name of its folder.
        identity: identifies it among all of its kind; a report replaces an older one of the same identity.
        inputs: everything that the page depends on, as JSON values.
    """

    kind: str
    name: str
    identity: str
    inputs: dict

    @property
    def marks(self) -> dict[str, str]:
        """Metadata written into the page, by which `finished` recognises it."""
        key = documents.canonical({"format": FORMAT, "magnet": __version__, "kind": self.kind} | self.inputs)
        return {"of": f"{self.kind} {self.identity}", "inputs": documents.sha256_bytes(key)}


def default_out(subject: Subject) -> Path:
    """Return ./reports/<name of the folder>.html."""
    return Path("reports") / f"{subject.name}.html"


def finished(out: Path, subject: Subject) -> bool:
    """Return whether the file is a report of this subject, made from the same inputs.

    Raises:
        SampleError: the file is something else, or a report of another subject.
        MagnetError: the file cannot be read.
    """
    with atomic.explained("read", out):
        if not out.exists():
            return False
        data = b"" if out.is_dir() else opening.read(out)
    identity, inputs = page.mark(data, "of"), page.mark(data, "inputs")
    if identity != subject.marks["of"]:
        other = f"a report of another {identity.partition(' ')[0]}" if identity else "another file"
        message = f"the report of {subject.kind} {subject.name} would be {out}, which is "
        message += "a folder" if out.is_dir() else other
        raise SampleError(
            message, "pass another file as `out`" + ", or `force=True` to replace it" * (not out.is_dir())
        )
    return inputs == subject.marks["inputs"] and _seconds(data) is not None


def write(out: Path, subject: Subject, lead: str, sections: list[str], seconds: float, *, force: bool = False) -> None:
    """Write the page atomically, with the seconds that it took; sections are those of `page.section`.

    Raises:
        SampleError: another process has written something else there meanwhile, which is not to be replaced.
        MagnetError: no space, no permission; an older page is unchanged.
    """
    marks = subject.marks | {"seconds": f"{seconds:.3f}"}
    data = page.document(subject.name, subject.kind, lead, sections, marks)
    with FileLock(out.with_name(f".{out.name}.lock")).held():
        if force or not finished(out, subject):
            atomic.publish(out, data)


def fields(out: Path, subject: Subject) -> dict[str, object]:
    """Return what `magnet report` prints of a page that was written, now or before."""
    with atomic.explained("read", out):
        data = out.read_bytes()
    about = {"report": str(out), "kind": subject.kind, "name": subject.name, "size": len(data)}
    return about | {"seconds": _seconds(data)}


def _seconds(data: bytes) -> float | None:
    text = page.mark(data, "seconds") or ""
    return float(text) if re.fullmatch(r"[0-9]+\.[0-9]{3}", text) else None
