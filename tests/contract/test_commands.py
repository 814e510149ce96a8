"""Commands are thin: a body of at most 25 lines; the verb and its decisions are in the rooms below."""

import ast
from pathlib import Path

import pytest

import magnet_cli

FOLDER = Path(magnet_cli.__file__).parent / "cli" / "commands"
MOST = 25


def bodies():
    """(command, lines of its body without the docstring) of each function that Typer runs."""
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            registered = isinstance(node, ast.FunctionDef) and any(
                "command" in ast.unparse(each) for each in node.decorator_list
            )
            if isinstance(node, ast.FunctionDef) and (node.name == "run" or registered):
                statements = node.body[1:] if ast.get_docstring(node) else node.body
                lines = statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0
                yield f"{path.stem}.{node.name}", lines


BODIES = dict(bodies())


def test_every_command_is_measured():
    assert len(BODIES) == 24


@pytest.mark.parametrize("command", BODIES)
def test_a_command_is_thin(command):
    assert BODIES[command] <= MOST
