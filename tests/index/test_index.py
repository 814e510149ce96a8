"""index: weights, draws and their diagnostics, against closed forms and simulation."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnet_cli import index
from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.files import documents
from magnet_cli.index import Index, Part
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

settings.register_profile("magnet", deadline=None)  # machines are shared: time says nothing here
settings.load_profile("magnet")

finite = st.floats(-1e4, 1e4)
volumes = st.lists(finite, min_size=1, max_size=40)


def of(values, above_floor=None):
    values = np.asarray(values, dtype=np.float64)
    real = np.ones(len(values), bool) if above_floor is None else np.asarray(above_floor)
    return Index("f" * 64, 1, (Part(0, 0, len(values), ""),), values, real)


def normal(sd, size=20_000, seed=0):
    return of(np.random.default_rng(seed).normal(size=size) * sd)


def test_log_volume_is_the_sum_of_logs():
    values = np.array([[4.0, 2.0, 0.5], [3.0, 1.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(index.log_volume(values, 2), [np.log(8), np.log(3)], rtol=1e-12)
    np.testing.assert_allclose(index.log_volume(values, 3), [np.log(4), -np.inf])


def test_log_volume_of_many_large_values_does_not_overflow():
    values = np.full((1, 512), 1e30, dtype=np.float32)
    np.testing.assert_allclose(index.log_volume(values, 512), 512 * np.log(np.float64(np.float32(1e30))))


@pytest.mark.parametrize("top_k", [0, 4])
def test_log_volume_refuses_a_k_it_does_not_have(top_k):
    with pytest.raises(SpecError, match=r"1\.\.3"):
        index.log_volume(np.ones((2, 3), np.float32), top_k)


@given(volumes, st.floats(-50, 50))
def test_weights_are_the_tilted_softmax(values, rho):
    log_weights, counts = of(values).log_weights(rho)
    assert np.isclose((counts * np.exp(log_weights)).sum(), 1)
    if rho:
        scores = rho * np.asarray(values)
        np.testing.assert_allclose(log_weights - log_weights[0], scores - scores[0], rtol=1e-9, atol=1e-6)


@given(volumes, st.floats(-5, 5), st.integers(0, 2**31), st.booleans(), st.data())
def test_the_first_m_of_n_draws_are_the_draw_of_m(values, rho, seed, replace, data):
    n = data.draw(st.integers(1, len(values)))
    m = data.draw(st.integers(1, n))
    known = of(values)
    long = index.choose(known, rho, n, seed, replace=replace).tolist()
    assert long[:m] == index.choose(known, rho, m, seed, replace=replace).tolist()
    assert replace or len(set(long)) == n


@pytest.mark.slow
@given(volumes, st.floats(-5, 5), st.data())
def test_displaced_share_is_a_share(values, rho, data):
    n = data.draw(st.integers(1, len(values)))
    assert 0 <= index.displaced_share(of(values), rho, n) <= 1


@given(volumes, st.floats(-5, 5))
def test_effective_size_is_between_one_and_the_pool(values, rho):
    assert 1 - 1e-9 <= index.effective_size(of(values), rho) <= len(values) + 1e-6


def test_effective_size_by_hand():
    weights = np.array([0.5, 0.25, 0.25])
    assert index.effective_size(of(np.log(weights)), 1.0) == pytest.approx(1 / (weights**2).sum())


@pytest.mark.slow
@pytest.mark.parametrize("replace", [False, True])
def test_first_draws_follow_the_weights(replace):
    """χ² of 20,000 first draws on five rows; fails for exp(0.9·log-volume)."""
    values = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
    known = of(values)
    first = [index.choose(known, 1.0, 1, seed, replace=replace)[0] for seed in range(20_000)]
    counts = np.bincount(first, minlength=5)

    def chi2(power):
        expected = np.exp(power * values) / np.exp(power * values).sum() * len(first)
        return ((counts - expected) ** 2 / expected).sum()

    assert chi2(1.0) < 23.5  # p = 1e-4 at 4 degrees of freedom
    assert chi2(0.9) > 23.5


@pytest.mark.slow
def test_draw_without_replacement_is_sequential_sampling():
    """Ordered pairs of three rows have probability w_i w_j / (1 - w_i)."""
    weights = np.array([0.6, 0.3, 0.1])
    known = of(np.log(weights))
    draws = [tuple(index.choose(known, 1.0, 2, seed)) for seed in range(20_000)]
    for i in range(3):
        for j in set(range(3)) - {i}:
            expected = weights[i] * weights[j] / (1 - weights[i])
            assert draws.count((i, j)) / len(draws) == pytest.approx(expected, abs=5 * np.sqrt(expected / len(draws)))


def test_displaced_share_equals_simulation():
    """Mean inclusion over 300 draws of 500 of 2,000 rows, rows binned by weight to average out the noise."""
    known = normal(1.0, size=2000)
    log_weights = known.log_weights(1.0)[0]
    counts = np.zeros(2000)
    for seed in range(300):
        counts[index.choose(known, 1.0, 500, seed)] += 1
    order = np.argsort(log_weights)
    inclusion = (counts / 300)[order].reshape(40, 50).mean(axis=1)
    asked = 500 * np.exp(log_weights)[order].reshape(40, 50).mean(axis=1)
    simulated = 0.5 * np.abs(inclusion - asked).sum() * 50 / 500
    assert index.displaced_share(known, 1.0, 500) == pytest.approx(simulated, abs=0.01)


def test_displaced_share_at_the_ends():
    assert index.displaced_share(of(np.zeros(1000)), 1.0, 100) < 1e-9  # equal weights: never displaced
    heavy = of(np.log([1 - 1e-9, *[1e-10] * 10]))
    assert index.displaced_share(heavy, 1.0, 11) == pytest.approx(10 / 11, abs=1e-6)  # all are drawn, one was asked for
    assert index.displaced_share(of([0.0, -5000.0, -9000.0]), 1.0, 2) == pytest.approx(0.5, abs=1e-6)


def plain_draw(known, rho, n, seed, *, replace):
    """The draw by its definition, all rows at once."""
    scores = np.where(known.above_floor, rho * known.log_volume, -np.inf)
    rng = np.random.default_rng([index.draws._STREAM, seed])
    if replace:
        ends = np.cumsum(np.exp(scores - scores.max()))
        return np.searchsorted(ends, rng.random(n) * ends[-1], side="right")
    return np.argsort(-(scores + rng.gumbel(size=len(scores))), kind="stable")[:n]


@pytest.mark.parametrize("rho", [0.3, -1.0, 50.0])
@pytest.mark.parametrize(("n", "replace"), [(1, False), (500, False), (190_000, False), (5000, True)])
def test_blocks_change_nothing(rho, n, replace):
    """Three and a half blocks of rows; some do not compete."""
    above = np.random.default_rng(1).random(230_000) > 0.1
    known = of(np.random.default_rng(0).normal(size=230_000) * 2, above)
    found = index.choose(known, rho, n, 7, replace=replace)
    np.testing.assert_array_equal(found, plain_draw(known, rho, n, 7, replace=replace))


def test_appended_rows_change_no_other_rows_key():
    values = np.random.default_rng(0).normal(size=150_000)
    short, long = index.choose(of(values[:100_000]), 0.5, 800, 3), index.choose(of(values), 0.5, 1200, 3)
    kept = [place for place in long.tolist() if place < 100_000]
    assert kept == short[: len(kept)].tolist()


def test_extreme_log_volumes_stay_ordered():
    """log-volumes of ±1e5 at rho ±50: the order of the rows is that of their volumes, and nothing overflows."""
    values = np.linspace(-1e5, 1e5, 100_000)
    assert index.choose(of(values), 50.0, 10, 0).tolist() == list(range(99_999, 99_989, -1))
    assert index.choose(of(values), -50.0, 10, 0).tolist() == list(range(10))
    assert index.effective_size(of(values), 50.0) == pytest.approx(1)
    assert index.displaced_share(of(values), 50.0, 10) == pytest.approx(0.9)


@pytest.mark.parametrize("rho", [0.0, 0.1, -0.3, 1.0])
def test_diagnostics_of_many_rows_are_those_of_every_row(rho, monkeypatch):
    """Log-volumes near each other stand together beyond 65,536 rows; the definitions hold to 1e-5."""
    values = np.random.default_rng(2).standard_t(5, size=400_000) * 3
    grouped = of(values, np.arange(400_000) % 1000 > 0)
    assert len(grouped.spread[0][0]) < 65_536
    assert grouped.spread[0][1].sum() == 399_600
    monkeypatch.setattr(index.index, "_BINS", 1 << 30)
    every = of(values, grouped.above_floor)
    assert len(every.spread[0][0]) == 399_600
    assert index.effective_size(grouped, rho) == pytest.approx(index.effective_size(every, rho), rel=1e-5)
    for n in (1000, 200_000):
        assert index.displaced_share(grouped, rho, n) == pytest.approx(index.displaced_share(every, rho, n), abs=1e-5)


def test_log_volumes_too_far_apart_are_not_put_together():
    values = np.random.default_rng(2).normal(size=300_000)
    values[5] = -1e5
    assert len(of(values).spread[0][0]) == 300_000


def test_working_memory_does_not_grow_with_the_rows():
    """Two million rows are 18 MB; a draw of 500 works in 8 MB, its diagnostics in what 65,536 groups need."""
    known = of(np.random.default_rng(0).normal(size=2_000_000))
    tracemalloc.start()
    index.choose(known, 0.3, 500, 0)
    index.choose(known, 0.3, 500, 0, replace=True)
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.reset_peak()
    index.draw(known, 500, 0.3, 0)
    assert tracemalloc.get_traced_memory()[1] < 32e6
    tracemalloc.stop()


@pytest.mark.parametrize(("sd", "low", "high"), [(0.5, 0.02, 0.05), (1, 0.09, 0.13), (2, 0.38, 0.47), (5, 0.92, 0.96)])
def test_displaced_share_of_normal_log_volumes(sd, low, high):
    """5,000 of 20,000: the figures of docs/method.md#displaced-share, .03 / .12 / .44 / .94 on small trials."""
    assert low < index.displaced_share(normal(sd), 1.0, 5000) < high


def test_a_useful_draw_is_rounded_down_to_what_is_useful():
    known = of(np.random.default_rng(0).normal(size=1000) * 3)
    n, rho = index.useful_draw(known, 64)
    assert (n, f"{rho:.2g}") == (64, f"{rho:g}")
    assert 0 < rho <= index.largest_useful_rho(known, 64, 1.0) < 1.1 * rho + 0.01
    assert index.useful_draw(known, 5000)[0] == 250
    assert index.useful_draw(of(np.zeros(100)), 8) == (8, 1.0)  # uniform on the manifold, not beyond


@pytest.mark.parametrize("sign", [-1, 1])
def test_largest_useful_rho_is_where_the_share_reaches_the_limit(sign):
    known = normal(2.0)
    rho = index.largest_useful_rho(known, 5000, sign * 1.0)
    assert np.sign(rho) == sign
    assert index.displaced_share(known, rho, 5000) <= 0.05
    assert index.displaced_share(known, rho * 1.03, 5000) > 0.05


def test_warnings_tell_shaky_draws_from_sound_ones():
    known = normal(2.0)
    for rho, word in ((0.0, None), (0.2, None), (0.5, "not where rho asks"), (4.0, "selection")):
        found = index.warnings(index.draw(known, 5000, rho, 0), rho, replace=False)
        assert bool(found) == bool(word)
        assert not word or word in found[0]
    copies = index.draw(known, 5000, 4.0, 0, replace=True)
    assert "copies" in index.warnings(copies, 4.0, replace=True)[0]


def test_a_draw_larger_than_the_pool():
    known = of([0.0, 1.0, 2.0], above_floor=[True, True, False])
    assert len(index.draw(known, 3, 0.0, 0).rows) == 3  # at rho 0 every row competes
    with pytest.raises(VolumeError, match="2 rows of the volume compete"):
        index.draw(known, 3, 1.0, 0)
    assert set(index.draw(known, 50, 1.0, 0, replace=True).rows.tolist()) == {0, 1}


def volume_of(path, values, rank_floor=1e-5):
    values = np.asarray(values, np.float32)
    spec = VolumeSpec(
        generator="g", sha256="0" * 64, family="dcgan", prior="normal", latent_dim=values.shape[1], space="z",
        output="pixel", truncation=1.0, top_k=values.shape[1], solver="exact", precision="float32",
        rank_floor=rank_floor, seed=0, shard_rows=len(values),
    )  # fmt: skip
    volume = Volume.create(path, spec)
    volume.write(0, Shard(np.zeros_like(values), values))
    return volume


def test_rank_floor_refuses_a_k_of_rounding_and_names_the_largest(tmp_path):
    values = np.tile([10.0, 1.0, 1e-2, 1e-6], (1000, 1))
    values[:2, 2] = 1e-7  # 0.2 % of the rows fall below at k = 3
    values[:2, 3] = 1e-8
    volume = volume_of(tmp_path / "v", values)
    for k in (3, 4):
        with pytest.raises(VolumeError, match=rf"top_k {k} reaches below the rank floor") as error:
            index.build(volume, k)
        assert "`top_k=2`" in error.value.hint
    assert index.build(volume, 2).above_floor.all()


def test_rows_below_the_floor_do_not_compete(tmp_path):
    values = np.tile([10.0, 1.0], (2000, 1))
    values[5, 1] = 0.0
    built = index.build(volume_of(tmp_path / "v", values), 2)
    assert np.flatnonzero(~built.above_floor).tolist() == [5]
    assert np.isneginf(next(built.scores(-3.0))[5])
    assert np.isfinite(next(built.scores(0.0))).all()
    assert (built.pool(-3.0), built.pool(0.0)) == (1999, 2000)
    assert 5 not in index.draw(built, 1999, -3.0, 0).rows


def test_stored_index_is_used_until_the_volume_changes(toy_volume, toy_generator, tmp_path):
    from magnet_cli import computing

    path = index.path_of(tmp_path / "indices", toy_volume, 5)
    assert index.stored(path, toy_volume, 5) is None
    built = index.build(toy_volume, 5)
    index.store(built, toy_volume, path)
    found = index.stored(path, toy_volume, 5)
    np.testing.assert_array_equal(found.log_volume, built.log_volume)
    np.testing.assert_array_equal(found.above_floor, built.above_floor)
    assert found.parts == built.parts
    assert index.current(found, toy_volume)
    assert index.stored(path, toy_volume, 4) is None
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert index.stored(path, toy_volume, 5) is None
    index.store(built, toy_volume, path)
    list(computing.fill(toy_volume, toy_generator, 201))
    assert not index.current(index.stored(path, toy_volume, 5), toy_volume)


def test_a_longer_volume_extends_the_index(toy_volume, toy_generator):
    """Shards that are as they were are not read again: here they are gone. The last one, made longer, is."""
    from magnet_cli import computing

    known = index.build(toy_volume, 5)
    list(computing.fill(toy_volume, toy_generator, 300))
    whole = index.build(toy_volume, 5)
    for shard in range(3):
        toy_volume.shard_path(shard).unlink()
    longer = index.build(toy_volume, 5, known)
    np.testing.assert_array_equal(longer.log_volume, whole.log_volume)
    assert longer.parts == whole.parts
    assert [part.rows for part in longer.parts] == [64, 64, 64, 64, 44]
    toy_volume.shard_path(3).unlink()
    with pytest.raises(VolumeError, match=r"shard-000003\.h5 is gone"):
        index.build(toy_volume, 5, known)


def test_rows_keep_their_numbers_where_shards_are_missing(toy_volume):
    for path in (toy_volume.shard_path(1), toy_volume.mark_path(1)):
        path.unlink()
    known = index.build(toy_volume, 5)
    assert known.rows(np.array([0, 63, 64, 127, 128, 135])).tolist() == [0, 63, 128, 191, 192, 199]
    drawn = index.draw(known, 30, 0.2, 0)
    places = [known.rows(np.arange(136)).tolist().index(row) for row in drawn.rows]
    np.testing.assert_array_equal(known.log_volume[places], drawn.log_volume)


def test_an_index_of_another_format_is_built_again_and_the_user_told(magnet):
    first = magnet("index", "mnist", "--json").json
    mark = Path(first["index"]).with_suffix(".json")
    fields = documents.read(mark)
    mark.write_bytes(documents.encode(fields | {"format": 1}))
    again = magnet("index", "mnist", "--json")
    assert again.json == first
    assert "another format" in again.err
    assert documents.read(mark) == fields


def test_values_that_are_not_finite_are_refused(tmp_path):
    values = np.tile([10.0, 1.0], (20, 1))
    values[3, 0] = np.inf
    with pytest.raises(VolumeError, match="not finite"):
        index.build(volume_of(tmp_path / "v", values), 2)


def test_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import magnet_cli.index, magnet_cli.volume.store"
    subprocess.run([sys.executable, "-c", code], check=True)
