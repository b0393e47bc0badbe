"""Mathematics alone: tensors in, tensors out. No files, no modules, no plotting."""
