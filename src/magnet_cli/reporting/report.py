"""Reports: one HTML page of a volume, a sample or a sweep, which loads nothing and runs nothing.

Owns the file: whether it is there already, what it may replace, and that it appears whole. What stands on a page is
computed and put together in `volumes`, `samples` and `sweeps`; how a page looks is `page`'s.
"""

from dataclasses import dataclass
from pathlib import Path

from magnet_cli import __version__
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic
from magnet_cli.reporting import page

FORMAT = 1


@dataclass(frozen=True)
class Subject:
    """What a report is of.

    Attributes:
        kind: "volume", "sample" or "sweep".
        name: of its folder.
        identity: what tells it from every other of its kind: a report of it may replace an older one.
        inputs: all that the page depends on, as JSON has it.
    """

    kind: str
    name: str
    identity: str
    inputs: dict

    @property
    def marks(self) -> dict[str, str]:
        """What is written into the page, so that it is known again."""
        key = atomic.canonical({"format": FORMAT, "magnet": __version__, "kind": self.kind} | self.inputs)
        return {"of": f"{self.kind} {self.identity}", "inputs": atomic.sha256_bytes(key)}


def default_out(subject: Subject) -> Path:
    """./reports/<name of the folder>.html."""
    return Path("reports") / f"{subject.name}.html"


def finished(out: Path, subject: Subject) -> bool:
    """Whether the report is there, made of the same inputs.

    Raises:
        SampleError: another file is there, or a report of something else.
        MagnetError: it cannot be read.
    """
    with atomic.explained("read", out):
        if not out.exists():
            return False
        found = b"" if out.is_dir() else out.read_bytes()
    of, inputs = page.mark(found, "of"), page.mark(found, "inputs")
    if of != subject.marks["of"]:
        what = f"a report of another {of.partition(' ')[0]}" if of else "a folder" if out.is_dir() else "another file"
        message = f"{out} is asked for as the report of {subject.kind} {subject.name}, and is {what}"
        raise SampleError(message, "pass another file with --out" + ", or --force to replace it" * (not out.is_dir()))
    return inputs == subject.marks["inputs"]


def write(out: Path, subject: Subject, lead: str, sections: list[str]) -> int:
    """Write the page; it appears whole.

    Args:
        out: the file.
        subject: what it is of.
        lead: the sentence below its heading.
        sections: what stands on it, as `page` makes them.

    Returns:
        Its size in bytes.

    Raises:
        MagnetError: no space, no permission; what was there is as it was.
    """
    made = page.document(subject.name, subject.kind, lead, sections, subject.marks)
    atomic.make_folder(out.parent)
    atomic.publish(out, made)
    return len(made)
