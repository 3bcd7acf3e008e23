"""The machine: devices, seeds, arithmetic and optimizers."""
