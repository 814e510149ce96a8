"""Docs, help and code stay in step: the commands of every page run, and links, anchors and generated pages are right.

A block ```sh holds commands that are run here; a block ```bash is shown only.
"""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from magnet_cli.cli.app import app

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
DOCS = ROOT / "docs"
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("**/*.md"))}
PAGES |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
README = PAGES["README.md"]
COMMANDS = [command.name for command in app.registered_commands]
GROUPS = {
    group.name: [command.name for command in group.typer_instance.registered_commands]
    for group in app.registered_groups
}

REFERENCE = SimpleNamespace(**runpy.run_path(str(ROOT / "tools/write_reference.py"), run_name="reference"))

SHORTER = {  # page: {part of a command: what stands in its place here}; the README runs as it stands
    "docs/tutorials/first-volume.md": {"--n 2000": "--n 600"},
    "docs/howto/choose-rho.md": {"--pick recall --out front": "--dry-run"},
    "docs/howto/fairer-samples.md": {"--n 2000": "--n 600", "--n 200 ": "--n 40 "},
    "docs/howto/render.md": {"--n 5000": "--n 50"},
    "docs/howto/many-workers.md": {"--quiet": ""},
    "docs/howto/publish.md": {"--n 2000": "--n 100"},
}
PLANNED = ("docs/howto/many-workers.md", "docs/explanation/tempered.md")  # with --dry-run: hours, or other machines
NETWORK = ("docs/tutorials/faces.md",)


def commands_in(text):
    """The magnet command lines of the ```sh blocks of a page, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = (line.partition(" #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("magnet ")]


def python_in(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def shorter(line, parts):
    for part, other in parts.items():
        line = line.replace(part, other)
    return line


def examples_of(magnet, command):
    text = magnet(*command.split(), "--help").out.partition("Examples:")[2]
    return [line.strip() for line in text.splitlines() if line.strip().startswith(f"magnet {command}")]


def run(magnet, line):
    done = magnet(*shlex.split(line)[1:])
    assert done.code == 0, f"{line}\n{done.err}"
    return done


def slug(heading):
    """The anchor that GitHub, and the site, give a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", lambda match: match[1] or "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text):
    return {
        slug(line.lstrip("#"))
        for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines()
        if line[:1] == "#"
    }


def test_readme_is_short_and_opens_with_two_commands():
    assert len(README.split()) <= 700
    assert re.match(r"# magnet\n\n```sh\nmake demo .*\nmake test .*\n```\n\n!\[.*\]\(docs/.*\.png\)\n", README)
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.slow
def test_demo_shows_true_draws_side_by_side(magnet):
    """The small draws of `make demo`, from the built-in volume: none displaced, and the picture has every image."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndemo:")[2].partition("\n\n")[0]
    draws = [line.partition("/magnet ")[2] for line in recipe.splitlines() if "magnet sample mnist --n 30 " in line]
    reports = [magnet(*shlex.split(draw), "--json").json for draw in draws]
    assert [report["rho"] for report in reports] == [-0.5, 0, 0.5]
    assert all(report["displaced_share"] <= 0.05 for report in reports)
    line = re.search(r"\(BIN\)/python (tools/side_by_side.py .*)", recipe)[1]
    subprocess.run([sys.executable, ROOT / line.split()[0], *line.split()[1:]], check=True)
    picture = np.asarray(Image.open("samples/demo.png").convert("L"))
    assert re.search(r"open (\S+):", recipe)[1] == "samples/demo.png"
    width = (picture.shape[1] - 2 * 16) // 3
    for i, report in enumerate(reports):
        for j in range(30):
            image = np.asarray(Image.open(Path(report["sample"], f"images/{j:06d}.png")))
            left, top = i * (width + 16) + 8 + j % 6 * 66, 36 + j // 6 * 66
            assert np.array_equal(picture[top : top + 64 : 2, left : left + 64 : 2], image)


def test_environment_names_every_variable():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"MAGNET_[A-Z_]+", source))
    assert named == set(re.findall(r"MAGNET_[A-Z_]+", PAGES["docs/reference/environment.md"]))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands_in(PAGES[page]) and page not in NETWORK])
def test_commands_of_a_page_run(magnet, page):
    """In their order, in one folder."""
    if page.endswith("your-own-generator.md"):
        Path("waves.py").write_text(re.search(r"```python\n(.*?)```", PAGES[page], re.DOTALL)[1])
    lines = [shorter(line, SHORTER.get(page, {})) for line in commands_in(PAGES[page])]
    for line in lines:
        if "info front" in line or "cuda" in line or "--device all" in line:
            continue
        run(magnet, f"{line} --dry-run" if page in PLANNED and "--dry-run" not in line else line)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if python_in(PAGES[page])])
def test_python_of_a_page_runs(page):
    """Its blocks in their order, in one process of their own, as somebody pastes them."""
    code = "\n".join(python_in(PAGES[page]))
    ignored = "ignore:`torch.jit.script` is deprecated:DeprecationWarning"  # of torch itself
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", ignored, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_array_job_is_right(magnet):
    array = re.search(r"exec (magnet .*)", PAGES["docs/howto/many-workers.md"])[1].replace("$SLURM_ARRAY_TASK_ID", "3")
    assert "nothing was done" in run(magnet, f"{array} --dry-run".replace(" --quiet", "")).err


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [*COMMANDS, *(f"{group} {name}" for group, names in GROUPS.items() for name in names)]
)
def test_examples_in_help_run(magnet, command):
    lines = examples_of(magnet, command)
    assert len(lines) >= 2
    if command == "import":
        run(magnet, "magnet export mnist-volume digits.npz")
    if command == "render":
        run(magnet, "magnet sample --n 16 --no-images --out picks")
    if command in {"evaluate", "attributes", "report"}:
        run(magnet, "magnet sample --n 100 --rho -0.3 --out typical")
        run(magnet, "magnet sample --n 100 --rho 0 --out prior")
    if command == "report":
        judged = run(magnet, "magnet evaluate typical --reference prior --json")
        Path("found.json").write_text(judged.out, encoding="utf-8")
    if command in {"balance", "direction"}:
        run(magnet, "magnet attributes mnist --n 2000 --model digits --out scored")
    if command == "edit":
        np.save("one.npy", np.eye(1, 16, dtype=np.float32))
    for line in lines:
        if "dcgan-digiface" not in line:
            run(magnet, line)


def test_the_example_entries_are_valid(tmp_path):
    from magnet_cli.catalog import entries as entries_
    from magnet_cli.catalog import image_model_entry

    path = tmp_path / "mine.toml"
    path.write_text("\n".join(re.findall(r"```toml\n(.*?)```", PAGES["docs/reference/catalogue.md"], re.DOTALL)))
    entries = entries_.read_list(path)
    assert entries["my-dcgan"].family == "dcgan"
    assert image_model_entry.preprocess(entries["smile"].preprocess).crop == 0.8
    assert image_model_entry.outputs(entries["smile"].outputs).classes == ("serious", "smiling")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Files that exist, and anchors that are headings of them."""
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_code_cites_definitions_that_exist():
    defined = anchors(PAGES["docs/method.md"])
    for folder in ("src", "tests", "benchmarks", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for anchor in re.findall(r"docs/method\.md#([\w-]+)", path.read_text(encoding="utf-8")):
                assert anchor in defined, f"{path}: {anchor}"


def test_contributing_answers_a_newcomer():
    """Every file that CONTRIBUTING.md names for a question is there, and holds the name."""
    table = PAGES["CONTRIBUTING.md"].partition("<!-- begin questions -->")[2].partition("<!-- end questions -->")[0]
    rows = re.findall(r"^\| (?!where).* \| `(.*)` \| `(.*)` \|$", table, re.MULTILINE)
    assert len(rows) >= 10
    for file, name in rows:
        assert name in (ROOT / file).read_text(encoding="utf-8"), (file, name)
    targets = re.findall(r"^make (\w+)", PAGES["CONTRIBUTING.md"], re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not [target for target in targets if f"\n{target}:" not in makefile]
    paths = re.findall(r"`((?:src|tests|tools|docs)/[\w/.-]*\.\w+)`", PAGES["CONTRIBUTING.md"])
    assert not [path for path in paths if "NAME" not in path and not (ROOT / path).exists()]


def test_every_page_is_on_the_site():
    entries = re.findall(r"^((?:[a-z-]+/)?[a-z-]+)$", PAGES["docs/index.md"], re.MULTILINE)
    assert sorted(f"docs/{entry}.md" for entry in entries) == sorted(
        {page for page in PAGES if page.startswith("docs/")} - {"docs/index.md"}
    )


@pytest.mark.slow
def test_generated_pages_are_those_of_the_code():
    for page, text in REFERENCE.pages().items():
        assert text == (ROOT / page).read_text(encoding="utf-8"), f"{page}: run `make reference`"


def test_nobody_imports_upward_in_the_drawing():
    """The floors that docs/architecture.md draws, against the imports."""
    floors, imports = REFERENCE.floors(PAGES["docs/architecture.md"]), REFERENCE.imports()
    height = {name: -number for number, names in enumerate(floors) for name in names}
    assert height.keys() == imports.keys()
    assert [(room, other) for room in imports for other in imports[room] if height[other] > height[room]] == []


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    """`make docs` without a warning; pages load nothing from elsewhere."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndocs:")[2].partition("\n\n")[0]
    command = re.search(r"\(BIN\)/python (-m sphinx .*)", recipe)[1].split()
    assert {"-W", "-n", "--keep-going"} <= set(command)
    done = subprocess.run(
        [sys.executable, *command[:-1], tmp_path / "site"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        outside = re.findall(
            r"<(?:link|script|img)[^>]*(?:href|src)=\"(https?:[^\"]*)", page.read_text(encoding="utf-8")
        )
        assert not outside, page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?https?:|@import", style.read_text(encoding="utf-8")), style


@pytest.mark.slow
def test_a_broken_link_fails_the_site(tmp_path):
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build"))
    (tmp_path / "README.md").write_text("# magnet\n\nSee [nothing](docs/glossary.md#no-such-word).\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "docs", "site"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no-such-word" in done.stderr


@pytest.mark.network
def test_faces_run(magnet, dense):
    """The commands on the face generator, with fewer rows; then its values against the dense float64 Jacobian."""
    import io

    import torch

    from magnet_cli.models.generators.dcgan import DCGAN
    from magnet_cli.volume import Volume

    parts = {"--n 512": "--n 10", "--n 128": "--n 4", "--n 600": "--n 200", "--n 40": "--n 4 --confidence 0"}
    for line in commands_in(PAGES["docs/tutorials/faces.md"]):
        done = run(magnet, shorter(line, parts))
        if " fetch dcgan" in line:
            weights = Path(done.out.strip())
        if " compute " in line:
            volume = Volume.open(Path(done.out.strip()))
    assert len(list(Path("samples").glob("*/images/*.png"))) == 4

    network = DCGAN(100, (512, 256, 128, 64), 3)
    state = torch.load(io.BytesIO(weights.read_bytes()), map_location="cpu", weights_only=True)
    network.load_state_dict(state["netG_state_dict"])
    network = network.to(torch.float64).eval().requires_grad_(False)
    rows = volume.read(0)
    truth = dense(network, rows.latents[:3], reverse=False)
    strong = truth >= 1e-3 * truth[:, :1]
    error = np.abs(np.log(rows.singular_values[:3]) - np.log(truth))
    assert strong.mean() > 0.5
    assert error[strong].max() <= 1e-3
