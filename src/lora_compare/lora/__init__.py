"""LoRA for the linear layers and embeddings of any model; knows nothing of its architecture.

    paths = inject(model, LoraParams(r=8, lora_alpha=16, ...))   # freeze, adapt, activate
    print(count(model))                                          # trainable params: ...
    ...                                                          # train what requires a gradient
    merge(model); unmerge(model)                                 # bits of the base come back
    activate(model, "other"); disabled(model)                    # several adapters on one base
    tensors = adapter_tensors(model)                             # to save; load_adapter_tensors
    unload(model); merge_and_unload(model)                       # plain layers again

A weight W of shape (d_out, d_in) gets the factors A (r, d_in) and B (d_out, r); the layer
computes with W + scale * B A.
"""

from lora_compare.lora.layer import LoRALayer, LowRank, lora_delta
from lora_compare.lora.model import (
    DEFAULT,
    Count,
    activate,
    active_adapter,
    adapted_layers,
    adapter_names,
    count,
    disabled,
    inject,
    merge,
    merge_and_unload,
    parameter_groups,
    unload,
    unmerge,
)
from lora_compare.lora.plain import dense_weight, is_conv1d
from lora_compare.lora.quantization import quantizable, quantize
from lora_compare.lora.state import adapter_tensors, bare_state_dict, load_adapter_tensors
from lora_compare.lora.targets import adaptable, describe_modules
from lora_compare.params import Aliases

__all__ = [
    "DEFAULT",
    "Aliases",
    "Count",
    "LoRALayer",
    "LowRank",
    "activate",
    "active_adapter",
    "adaptable",
    "adapted_layers",
    "adapter_names",
    "adapter_tensors",
    "bare_state_dict",
    "count",
    "dense_weight",
    "describe_modules",
    "disabled",
    "inject",
    "is_conv1d",
    "load_adapter_tensors",
    "lora_delta",
    "merge",
    "merge_and_unload",
    "parameter_groups",
    "quantizable",
    "quantize",
    "unload",
    "unmerge",
]
