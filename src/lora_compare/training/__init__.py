"""One loop for every method, from the base model to a trained classifier."""
