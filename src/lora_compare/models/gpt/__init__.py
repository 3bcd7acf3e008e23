"""GPT-2: its network, tokenizer and published weights, and the pre-training of `gpt2-nano`."""
