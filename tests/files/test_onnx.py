"""ONNX files whose weights lie elsewhere are told without running anything."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from magnet_cli.catalog import cache
from magnet_cli.files.onnx import has_external_data

WHOLE = (cache.BUILT_IN / "digits.onnx").read_bytes()


def elsewhere(name="w"):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    return tensor


def constant():
    return helper.make_node("Constant", [], ["w"], value=elsewhere())


def branch():
    inner = helper.make_graph([constant()], "inner", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [3])])
    return helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)


def sparse():
    tensor = onnx.SparseTensorProto(dims=[3])
    tensor.values.CopyFrom(elsewhere())
    return tensor


def model(nodes=(), **fields):
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [], **fields))


PLACES = {
    "initializer": lambda: model(initializer=[elsewhere()]),
    "sparse": lambda: model(sparse_initializer=[sparse()]),
    "constant": lambda: model([constant()]),
    "branch": lambda: model([branch()]),
    "function": lambda: helper.make_model(
        helper.make_graph([], "g", [], []),
        functions=[helper.make_function("d", "f", [], ["w"], [constant()], [helper.make_opsetid("", 18)])],
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_elsewhere_are_seen_wherever_a_tensor_may_be(place):
    assert has_external_data(PLACES[place]().SerializeToString())


def test_weights_in_the_file_are_as_they_should_be():
    assert not has_external_data(WHOLE)
    assert not has_external_data(model(initializer=[numpy_helper.from_array(np.zeros(3), "w")]).SerializeToString())


@given(st.binary(max_size=200) | st.integers(0, len(WHOLE)).map(lambda size: WHOLE[:size]))
@settings(max_examples=200, deadline=None)
def test_other_bytes_are_an_error_or_an_answer(data):
    try:
        assert has_external_data(data) in {True, False}
    except ValueError:
        return
