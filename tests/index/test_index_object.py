"""Index from Python: of a volume, weights, effective size, draws, and how it shows in a notebook."""

import numpy as np
import pytest
import torch

from magnet_cli import index
from magnet_cli.errors import SpecError
from magnet_cli.index import Index


def test_it_is_that_of_the_volume(toy_volume):
    known = Index.of(toy_volume)
    assert (known.top_k, known.num_rows, repr(known)) == (5, 200, "Index(200 rows, top_k=5)")
    np.testing.assert_array_equal(Index.of(toy_volume, 3).log_volume, index.build(toy_volume, 3).log_volume)
    with pytest.raises(SpecError, match=r"outside 1\.\.5"):
        Index.of(toy_volume, 6)


@pytest.mark.parametrize("rho", [-2.0, 0.0, 0.7])
def test_weights_are_powers_of_the_volume_scalar(toy_volume, rho):
    values = np.concatenate([shard.singular_values for _, shard in toy_volume.rows()]).astype(np.float64)
    powers = values[:, :4].prod(axis=1) ** rho
    known = Index.of(toy_volume, 4)
    np.testing.assert_allclose(known.weights(rho), powers / powers.sum(), rtol=1e-9)
    assert known.effective_size(rho) == pytest.approx(powers.sum() ** 2 / (powers**2).sum())
    drawn = known.draw(30, rho, 5)
    assert drawn.rows.tolist() == index.draw(known, 30, rho, 5).rows.tolist()
    assert known.draw(7, rho, 5, replace=True).rows.tolist() == known.draw(9, rho, 5, replace=True).rows[:7].tolist()


def test_rows_that_do_not_compete_weigh_nothing_and_classes_weigh_the_same():
    logs, of_class = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1])
    above = np.array([True, True, True, False])
    parts = (index.Part(0, 0, 4, ""),)
    weights = Index("", 1, parts, logs, above, classes=(4, 9), class_of=of_class).weights(1.0)
    np.testing.assert_allclose(weights, [0.5 / (1 + np.e), 0.5 * np.e / (1 + np.e), 0.5, 0])


def test_a_notebook_shows_a_table(toy_volume):
    known = Index.of(toy_volume)
    text = known._repr_html_()
    assert text.startswith("<table>")
    assert "<th>-0.5</th>" in text
    assert f"<td>{known.effective_size(0.5):,.0f}</td>" in text


def test_log_volume_takes_tensors_and_numbers_whose_products_underflow():
    values = torch.tensor([[1e-200, 1e-210, 1e-220], [4.0, 2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(index.log_volume(values, 3), [-630 * np.log(10), np.log(4)])
