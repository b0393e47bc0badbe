"""Mathematics: tensors in, tensors out. No files, no models, no plots."""
