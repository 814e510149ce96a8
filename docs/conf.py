"""Configuration of the documentation site: `make docs` builds it into docs/_build."""

project = "magnet"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
root_doc = "index"

myst_heading_anchors = 4  # GitHub's anchors for every heading, so that a link works there and here

html_theme = "furo"
html_title = "magnet"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
