"""README, help and commands stay in step: every example in them is run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnet_cli.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [command.name for command in app.registered_commands]
GROUPS = {
    group.name: [command.name for command in group.typer_instance.registered_commands]
    for group in app.registered_groups
}


def commands_in(text):
    """The magnet command lines of the ```sh blocks of a page, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = (line.partition(" #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("magnet ")]


def examples_of(magnet, command):
    text = magnet(*command.split(), "--help").out.partition("Examples:")[2]
    return [line.strip() for line in text.splitlines() if line.strip().startswith(f"magnet {command}")]


def run(magnet, line):
    done = magnet(*shlex.split(line)[1:])
    assert done.code == 0, f"{line}\n{done.err}"
    return done


def test_readme_opens_with_the_two_commands():
    assert re.match(r"# magnet\n\n```sh\nmake demo .*\nmake test .*\n```\n\n!\[.*\]\(docs/.*\.png\)\n", README)
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


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
            left, top = i * (width + 16) + 8 + j % 6 * 64, 36 + j // 6 * 64
            assert np.array_equal(picture[top : top + 64 : 2, left : left + 64 : 2], image)


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPS])
def test_readme_names_every_command(command):
    table = README.partition("## Commands")[2].partition("## ")[0]
    assert f"| `magnet {command}" in table
    assert f"magnet {command}" in "\n".join(commands_in(README))


def test_readme_and_code_agree_on_the_environment():
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"MAGNET_[A-Z_]+", source))
    assert named - {"MAGNET_ACCEPT_LICENSE"} <= set(re.findall(r"MAGNET_[A-Z_]+", README))


def test_readme_tour_runs(magnet):
    lines = [line for line in commands_in(README) if "dcgan-digiface" not in line]
    assert len(lines) >= 6
    for line in lines:
        run(magnet, line)
    assert len(list(Path("typical/images").iterdir())) == 100


def test_commands_of_the_page_on_clusters_are_right(magnet):
    """Without doing them: they ask for a million rows, and for machines that are not here."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    array = re.search(r"exec (magnet .*)", page)[1].replace("$SLURM_ARRAY_TASK_ID", "3")
    lines = [line for line in (*commands_in(page), array) if "cuda" not in line and "--device all" not in line]
    assert len(lines) >= 5
    for line in lines:
        assert "nothing was done" in run(magnet, f"{line} --dry-run".replace(" --quiet", "")).err


def test_the_page_on_rendering_runs(magnet):
    page = (ROOT / "docs" / "rendering.md").read_text(encoding="utf-8")
    lines = commands_in(page)
    assert len(lines) == 5
    for line in lines:
        run(magnet, line.replace("--n 5000", "--n 50"))
    assert Path("figure/montage.png").is_file()
    assert len(list(Path("rendered/images").iterdir())) == 50


def test_commands_of_the_page_on_sweeps_are_right(magnet):
    """Without doing them: their like runs in tests/test_sweep.py."""
    lines = commands_in((ROOT / "docs" / "sweep.md").read_text(encoding="utf-8"))
    assert len(lines) == 3
    for line in lines[:2]:
        assert "nothing was done" in run(magnet, f"{line.removesuffix(' --dry-run')} --dry-run").err


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
        found = run(magnet, "magnet evaluate typical --reference prior --json")
        Path("found.json").write_text(found.out, encoding="utf-8")
    if command in {"balance", "direction"}:
        run(magnet, "magnet attributes mnist --n 2000 --model digits --out scored")
    if command == "edit":
        np.save("one.npy", np.eye(1, 16, dtype=np.float32))
    for line in lines:
        if "dcgan-digiface" not in line:
            run(magnet, line)


def test_the_example_entry_is_valid(tmp_path):
    from magnet_cli.catalog import entries

    path = tmp_path / "mine.toml"
    path.write_text(README.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    assert entries.read_list(path)["my-dcgan"].family == "dcgan"


def test_the_example_entry_of_an_image_model_is_valid(tmp_path):
    from magnet_cli.catalog import entries, image_model_entry

    page = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    found = entries.read_list(path)["smile"]
    assert image_model_entry.preprocess(found.preprocess).crop == 0.8
    assert image_model_entry.outputs(found.outputs).classes == ("serious", "smiling")


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "docs" / "sampling.md"):
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).is_file(), link


@pytest.mark.network
def test_readme_faces_run(magnet, dense):
    """The commands on the face generator, with fewer rows; then its values against the dense float64 Jacobian."""
    import io

    import torch

    from magnet_cli.models.generators.dcgan import DCGAN
    from magnet_cli.volume import Volume

    lines = [line for line in commands_in(README) if "dcgan-digiface" in line]
    assert len(lines) == 3
    for line in lines:
        done = run(magnet, line.replace("--n 512", "--n 10").replace("--n 128", "--n 4"))
        if " fetch " in line:
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
