"""From logits to answers: what logits stand for, and what is chosen on validation."""
