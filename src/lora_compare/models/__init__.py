"""Text in, logits out: tokens, the network, its weights, the base model."""
