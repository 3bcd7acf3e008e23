"""A classifier as an ONNX model; the only module that needs the extra `onnx`."""

from importlib.util import find_spec
from pathlib import Path

import torch

from lora_compare.errors import ExportError
from lora_compare.models.gpt.network import Classifier
from lora_compare.project.progress import without_warnings

LARGEST_FILE = 2_000_000_000
"""Bytes of weights above which they go into a file beside the model: protobuf ends at 2 GiB."""


def write_onnx(path: Path, model: Classifier) -> None:
    """Write `model` to `path`: tokens (b, t) and lengths (b,) in, logits (b, n_classes) out.

    Batch and sequence have any size up to the context length.

    Args:
        path: The file; weights that are too large for it go into `<name>.data` beside it.
        model: The classifier, on the CPU, with plain layers.

    Raises:
        ExportError: The libraries for ONNX are not installed.

    Checked by tests/parity/test_export.py.
    """
    _require_libraries()
    limit = model.gpt.config.context_length
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=limit)
    # Two texts of unequal length: a size of 1 would be taken for a constant.
    length = min(3, limit)
    example = (torch.zeros(2, length, dtype=torch.int64), torch.tensor([length, 1]))
    with without_warnings("torch.onnx"):
        program = torch.onnx.export(
            model.eval(),
            example,
            input_names=["tokens", "lengths"],
            output_names=["logits"],
            dynamic_shapes={"tokens": {0: batch, 1: sequence}, "lengths": {0: batch}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    program.save(path, external_data=size > LARGEST_FILE)


def _require_libraries() -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"The export to ONNX needs the library {' and '.join(missing)}.",
            where="--format onnx",
            next='pip install "lora-compare[onnx]" (here: pip install -e ".[onnx]")',
        )
