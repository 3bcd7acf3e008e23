"""PEFT's format of adapters, read and written."""
