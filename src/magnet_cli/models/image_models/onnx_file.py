"""Run ONNX files by onnxruntime on the CPU."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError, require
from magnet_cli.files import onnx

_ERRORS = 3  # of onnxruntime's severities: its warnings are about graphs that work


def runner(data: bytes, name: str, outputs: tuple[str, ...]) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return a function from images [B, C, H, W] to the named outputs, or all; ValueError for unsuitable images."""
    try:
        is_elsewhere = onnx.has_external_data(data)
    except ValueError as error:
        raise GeneratorError(f"{name} cannot be read as ONNX: {error}", "check that the file is whole") from error
    if is_elsewhere:
        message = f"{name} has weights in other files, which its sha256 does not cover"
        raise GeneratorError(message, "save it as one file: onnx.save(model, path, save_as_external_data=False)")
    onnxruntime = require("onnxruntime", "evaluate")
    state = onnxruntime.capi.onnxruntime_pybind11_state
    failures = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NotImplemented)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), _ERRORS
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except failures as error:
        message = f"{name} cannot be read as ONNX: {next(iter(str(error).splitlines()), '')[:200]}"
        raise GeneratorError(message, "check that the file is whole") from error
    inputs, present = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) != 1:
        message = (
            f"{name} takes {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), and images are all there is"
        )
        raise GeneratorError(message, "export it with images as its one input")
    if missing := [output for output in outputs if output not in present]:
        message = f"{name} has no output {missing[0]!r}: found {', '.join(present)}"
        raise GeneratorError(message, f"correct [{name}.outputs] in the list of artifacts")
    names = list(outputs) or present

    def run(images: Tensor) -> dict[str, Tensor]:
        try:
            values = session.run(names, {inputs[0].name: images.contiguous().numpy()})
            return {output: torch.from_numpy(np.asarray(each)) for output, each in zip(names, values, strict=True)}
        except (*failures, TypeError) as error:  # TypeError: of texts, sequences and maps
            raise ValueError(str(error)) from error

    return run
