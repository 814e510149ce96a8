"""Text that somebody else chose: shown as it is, and one word to a shell."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from magnet_cli.files.text import quoted, visible

BAD = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\x7f\u202egpj.\u2066\ud800\r"


def test_control_and_bidirectional_characters_are_written_out():
    assert visible(BAD) == r"\u001b]0;OWNED\u0007\u001b[2J\u009b31m\u007f\u202egpj.\u2066\ud800\r"
    assert visible("a\nb") == r"a\nb"
    assert visible("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize("text", ["", "ψ 0.5", "Größe\N{NO-BREAK SPACE}1", "👩\u200d🚀", "`x` 'y' \"z\" \\"])
def test_all_other_text_stays(text):
    assert visible(text) == text


def test_json_is_of_the_same_value():
    fields = {"a": BAD + "ψ\n"}
    encoded = visible(json.dumps(fields, ensure_ascii=False))
    assert encoded.isprintable()
    assert json.loads(encoded) == fields


@pytest.mark.parametrize(
    "word", ["x; touch owned", "$(touch owned)", "`touch owned`", "a'b", "two words", "\x1b[31m", ""]
)
def test_a_word_of_a_command_is_one_word_to_a_shell(word):
    line = f"printf %s {quoted(word)}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == visible(word)
    assert not list(Path.cwd().iterdir())
    assert shlex.split(quoted(word)) == [visible(word)]
