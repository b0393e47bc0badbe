"""All that knows the inside of transformers' models."""
