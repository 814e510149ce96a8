"""The file of a report: one HTML page of a volume, a sample or a sweep, which loads nothing and runs nothing."""

from dataclasses import dataclass
from pathlib import Path

from magnet_cli import __version__
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents
from magnet_cli.files.locks import FileLock
from magnet_cli.reporting import page

FORMAT = 1


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
        data = b"" if out.is_dir() else out.read_bytes()
    identity, inputs = page.mark(data, "of"), page.mark(data, "inputs")
    if identity != subject.marks["of"]:
        other = f"a report of another {identity.partition(' ')[0]}" if identity else "another file"
        message = f"the report of {subject.kind} {subject.name} would be {out}, which is "
        message += "a folder" if out.is_dir() else other
        raise SampleError(
            message, "pass another file as `out`" + ", or `force=True` to replace it" * (not out.is_dir())
        )
    return inputs == subject.marks["inputs"]


def write(out: Path, subject: Subject, lead: str, sections: list[str], *, force: bool = False) -> int:
    """Write the page atomically and return its size in bytes; sections are those of `page.section`.

    Raises:
        SampleError: another process has written something else there meanwhile, which is not to be replaced.
        MagnetError: no space, no permission; an older page is unchanged.
    """
    data = page.document(subject.name, subject.kind, lead, sections, subject.marks)
    with FileLock(out.with_name(f".{out.name}.lock")).held():
        if force or not finished(out, subject):
            atomic.publish(out, data)
    return len(data)
