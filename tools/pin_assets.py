"""Write the sha256 and size of the built-in assets into artifacts.toml, after they were made anew.

python tools/pin_assets.py
"""

import re
from pathlib import Path

from magnet_cli.catalog import cache, entries
from magnet_cli.files import documents


def main() -> None:
    """Rewrite the two lines of every built-in entry whose file is there."""
    path = Path(__file__).parents[1] / "artifacts.toml"
    text = path.read_text(encoding="utf-8")
    for artifact in entries.read_list(path).values():
        place = cache.path_of(artifact)
        if artifact.scheme != "builtin" or not place.exists():
            continue
        sha256, size = (
            documents.sha256_folder(place) if place.is_dir() else (documents.sha256_file(place), place.stat().st_size)
        )
        table = re.search(rf"^\[{re.escape(artifact.name)}\]\n(?:(?!\[).*\n?)*", text, re.MULTILINE)
        changed = re.sub(r'(?m)^sha256 = ".*"$', f'sha256 = "{sha256}"', table[0])
        changed = re.sub(r"(?m)^size = \d+$", f"size = {size}", changed)
        text = text.replace(table[0], changed)
        print(f"{artifact.name}: {size:,} bytes, sha256 {sha256}")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
