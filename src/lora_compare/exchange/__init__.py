"""Methods to and from other programs: PEFT, transformers, ONNX."""
