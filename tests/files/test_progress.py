"""progress: tables as text."""

from magnet_cli.files.progress import aligned

HEADER, ROWS = (
    ["name", "about"],
    [["a-name-that-stays-whole", "some words that can be told in several lines"], ["b", ""]],
)


def test_a_table_is_as_wide_as_it_needs():
    assert aligned(HEADER, ROWS).splitlines() == [
        "name                     about",
        "a-name-that-stays-whole  some words that can be told in several lines",
        "b",
    ]


def test_within_a_width_cells_go_on_in_further_lines_and_nothing_is_cut():
    lines = aligned(HEADER, ROWS, 50).splitlines()
    assert max(map(len, lines)) <= 50
    assert [line[25:] for line in lines[1:3]] == ["some words that can be", "told in several lines"]
    assert lines[2].startswith(" " * 25)
    narrow = aligned(HEADER, ROWS, 5)
    assert "a-name-that-stays-whole" in narrow
    assert " ".join(line[25:].strip() for line in narrow.splitlines()[1:-1]) == ROWS[0][1]
