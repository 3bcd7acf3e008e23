"""Typed, frozen and strict models of params.yaml; the only reader of YAML."""

from lora_compare.params.editing import with_method
from lora_compare.params.experiment import (
    METHOD_NAME,
    RESERVED_METHOD_NAMES,
    Params,
    describe_method_name,
)
from lora_compare.params.methods import LoraParams, MethodParams, Trainable
from lora_compare.params.reading import load_params, parse_params, read_yaml
from lora_compare.params.sections import (
    ClassifierParams,
    DataParams,
    ModelParams,
    PretrainingParams,
    Section,
    SplitParams,
    TrackingParams,
    TrainingParams,
)

__all__ = [
    "METHOD_NAME",
    "RESERVED_METHOD_NAMES",
    "ClassifierParams",
    "DataParams",
    "LoraParams",
    "MethodParams",
    "ModelParams",
    "Params",
    "PretrainingParams",
    "Section",
    "SplitParams",
    "TrackingParams",
    "Trainable",
    "TrainingParams",
    "describe_method_name",
    "load_params",
    "parse_params",
    "read_yaml",
    "with_method",
]
