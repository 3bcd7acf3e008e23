"""Any classifier that transformers has, from the Hugging Face hub or a folder."""
