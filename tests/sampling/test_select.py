"""select: which volume and which index a request means, what the user is told, and what is refused."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from magnet_cli import index
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.sampling import select
from magnet_cli.sampling.select import VolumeRequest


@dataclass
class CacheEntry:
    """Messages, kept."""

    notes: list = field(default_factory=list)
    warnings: list = field(default_factory=list)

    def note(self, text):
        self.notes.append(text)

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture
def source(toy):
    return Checkpoint.find(str(toy))


@pytest.fixture
def messages():
    return CacheEntry()


@pytest.mark.slow
def test_the_longest_volume_that_fits_is_chosen(magnet, toy, source, messages):
    short = magnet("compute", toy, "--n", 30).out.strip()
    long = magnet("compute", toy, "--n", 60, "--seed", 1, "--top-k", 3).out.strip()
    other = magnet("compute", toy, "--n", 90, "--truncation", 0.5).out.strip()
    assert select.find_volume(source, VolumeRequest(), messages).path == Path(long)
    assert messages.notes == [f"drawing from {long} (60 rows, the longest of 2)"]
    assert select.find_volume(source, VolumeRequest(top_k=4), messages).path == Path(short)
    assert select.find_volume(source, VolumeRequest(truncation=0.5), messages).path == Path(other)
    assert select.find_volume(source, VolumeRequest(volume=Path(short)), messages).path == Path(short)
    assert select.find_volume(source, VolumeRequest(solver="auto", precision="auto"), messages).path == Path(long)


def test_a_short_volume_of_ones_own_goes_before_the_published_one_with_a_warning(magnet, messages):
    """The built-in volume of mnist has 20,000 rows."""
    own = magnet("compute", "mnist", "--n", 100, "--solver", "exact").out.strip()
    source = Checkpoint.find("mnist")
    assert select.find_volume(source, VolumeRequest(), messages).path == Path(own)
    (warning,) = messages.warnings
    assert f"your own volume {own} of 100 rows goes before the published one of 20,000" in warning
    published = Path(warning.partition("`volume='")[2].rstrip("'`"))
    assert select.find_volume(source, VolumeRequest(volume=published), messages).num_rows == 20_000
    assert select.find_volume(source, VolumeRequest(volume=Path(own)), messages).path == Path(own)
    assert len(messages.warnings) == 1  # what was named is meant


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--truncation", 0.5, "--top-k", 3]])
def test_the_commands_that_are_suggested_draw_well_from_that_volume(magnet, toy, more):
    """Another, longer volume of the same generator is there: what is suggested stays with the one it was about."""
    magnet("compute", toy, "--n", 400, "--seed", 1)
    done = magnet("compute", toy, "--n", 300, *more)
    for command in ("index", "sample"):
        line = done.err.partition("next: magnet ")[2].split("\n")[0]
        assert line.startswith(command)
        done = magnet(*line.split(), "--json")
        assert done.code == 0, done.err
        assert "warning" not in done.err
    assert done.json["pool"] == 300
    assert done.json["rho"] > 0
    assert done.json["displaced_share"] <= 0.05


def test_where_none_fits_the_command_that_makes_it_is_named(magnet, toy, source, messages):
    magnet("compute", toy, "--n", 30)
    request = VolumeRequest(top_k=4, truncation=0.5, bn_truncation=0.25, precision="float64", nvae_latents="all")
    flags = " --top-k 4 --truncation 0.5 --precision float64 --bn-truncation 0.25 --nvae-latents all"
    with pytest.raises(VolumeError) as error:
        select.find_volume(source, request, messages)
    assert error.value.message == f"there is no volume of toy with{flags}"
    assert error.value.hint == f"make one: magnet compute {toy}{flags}"
    assert VolumeRequest(bn_truncation=1.0, nvae_latents="top").flags == ""
    assert VolumeRequest(label=(3, "tabby")).flags == " --label 3 --label 281"


def test_images_at_a_truncation_without_volume_are_drawn_by_that_without(magnet, toy, source, messages):
    magnet("compute", toy, "--n", 30)
    request = VolumeRequest(truncation=0.5)
    with pytest.raises(VolumeError):
        select.resolve(source, request, messages)
    resolved = select.resolve(source, request, messages, rendered=True)
    assert resolved.volume.spec.truncation == 1.0
    assert messages.warnings == [
        "rows are drawn by their volume at truncation 1, images are rendered at 0.5; "
        f"for one at 0.5: magnet compute {toy} --truncation 0.5"
    ]


def test_classes_by_name_are_those_of_imagenet():
    request = VolumeRequest(label=("tabby", 4))
    assert request.labels == (281, 4)
    request.check_names("biggan", 1000)
    with pytest.raises(SpecError, match="'tabby' is a class of ImageNet, and toy has 10 classes of its own"):
        request.check_names("toy", 10)
    VolumeRequest(label=(4,)).check_names("toy", 10)
    with pytest.raises(SpecError, match="no class of ImageNet"):
        VolumeRequest(label=("no such animal",)).labels  # noqa: B018


def test_the_index_is_stored_and_grows_with_the_volume(toy_volume, messages, home):
    built, path = select.index_of(toy_volume, 3, messages)
    assert path.parent == home / "indices"
    np.testing.assert_array_equal(built.log_volume, index.build(toy_volume, 3).log_volume)
    before = path.stat().st_mtime_ns
    again, _ = select.index_of(toy_volume, 3, messages)
    np.testing.assert_array_equal(again.log_volume, built.log_volume)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(b"damaged")
    repaired, _ = select.index_of(toy_volume, 3, messages)
    np.testing.assert_array_equal(repaired.log_volume, built.log_volume)
    assert messages.notes == [f"{path} is of another format, or damaged: the index is built again"]


def test_an_index_that_cannot_be_stored_is_used_all_the_same(toy_volume, messages, home):
    home.mkdir()
    (home / "indices").write_text("in the way")
    built, _ = select.index_of(toy_volume, 3, messages)
    assert built.num_rows == 200
    assert len(messages.warnings) == 1
    assert messages.warnings[0].startswith("the index is not kept: ")


def test_a_correction_for_a_prior_that_is_even_is_none(toy_volume, messages):
    built, _ = select.index_of(toy_volume, 5, messages)
    tilted = select.corrected(built, toy_volume, messages, 0.9, 1.0)
    assert tilted.ball.prior_mass == 0.9
    toy_volume.spec = dataclasses.replace(toy_volume.spec, prior="uniform")
    assert select.corrected(built, toy_volume, messages, None, 1.0) is built
    assert messages.notes == [index.EVEN_PRIOR]
