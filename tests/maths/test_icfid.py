"""ICFID: which label is held against which class, the mean, and `magnet evaluate --by-class`."""

import numpy as np
import pytest
from PIL import Image

from magnet_cli.maths.metrics import frechet, icfid, intervals


def test_pairs_are_matched_by_the_smallest_distance_first():
    table = np.array([[1.0, 2.0], [1.5, 9.0]])  # the best sum would be the other way round
    assert icfid.matched(table) == [(0, 0), (1, 1)]
    assert icfid.matched(np.array([[5.0, 1.0, 3.0], [4.0, 0.5, 2.0]])) == [(1, 1), (0, 2)]
    assert table[0, 0] == 1  # it is left as it was


def test_it_is_the_mean_of_matched_distances():
    rng = np.random.default_rng(0)
    means = {0: (0, 0, 0), 1: (5, 0, 0)}

    def drawn(labels, shift):
        return rng.normal(size=(len(labels), 3)) + np.array([means[label] for label in labels]) + shift

    ours, theirs = rng.integers(0, 2, 400), rng.integers(0, 2, 500)
    sides = drawn(ours, 0.0), drawn(1 - theirs, 1.0)  # their class 1 is our label 0
    dealt = intervals.groups(400, 0), intervals.groups(500, 1)
    value, replicas, pairs = icfid.icfid(sides, (ours, theirs), dealt)
    assert sorted(pairs) == [(0, 1), (1, 0)]
    each = [frechet.fid(sides[0][ours == i], sides[1][theirs == j], None)[0] for i, j in pairs]
    assert value == pytest.approx(np.mean(each))
    assert value == pytest.approx(3, abs=0.5)  # three coordinates shifted by 1
    assert replicas.shape == (intervals.GROUPS,)
    found = intervals.jackknife(value, replicas)
    assert found.low < 3 < found.high
    one = dealt[0] != 4, dealt[1] != 4
    without = [frechet.fid(sides[0][(ours == i) & one[0]], sides[1][(theirs == j) & one[1]], None)[0] for i, j in pairs]
    assert replicas[4] == pytest.approx(np.mean(without))


def folders(path, seed, names=("dark", "bright"), each=130):
    rng = np.random.default_rng(seed)
    for k, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(100 * k, 100 * k + 100, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i}.png")
    return path


@pytest.mark.slow
def test_evaluate_by_class(magnet, tmp_path):
    one, other = folders(tmp_path / "one", 0), folders(tmp_path / "other", 1, ("a-bright", "b-dark"))
    for i in range(130):  # the same two kinds under names in another order
        swapped = [other / "a-bright" / f"{i}.png", other / "b-dark" / f"{i}.png"]
        swapped[0].rename(tmp_path / "x.png")
        swapped[1].rename(swapped[0])
        (tmp_path / "x.png").rename(swapped[1])
    done = magnet("evaluate", one, "--reference", other, "--by-class", "--json")
    assert done.code == 0
    by_class, whole = done.json["metrics"]["icfid[digits]"], done.json["metrics"]["fid[digits]"]
    assert done.json["matched"] == [{"0": "a-bright", "1": "b-dark"}]  # folders by name: bright, dark
    assert by_class["low"] <= by_class["value"] <= by_class["high"]
    assert by_class["value"] < whole["value"] * 5
    assert "icfid[digits]" not in magnet("evaluate", one, "--reference", other, "--json").json["metrics"]


def test_evaluate_by_class_says_what_is_missing(magnet, tmp_path):
    one, few = folders(tmp_path / "one", 0), folders(tmp_path / "few", 1, each=60)
    done = magnet("evaluate", one, "--reference", few, "--by-class", "--json")
    assert done.code == 0
    assert "60 images of a class" in done.json["undefined"]["icfid[digits]"]
    flat = tmp_path / "one" / "dark"
    refused = magnet("evaluate", flat, "--reference", one, "--by-class")
    assert (refused.code, refused.out) == (1, "")
    assert "no classes" in refused.err
