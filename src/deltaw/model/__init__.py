"""Everything that knows the inside of transformers' models: names, loading, splitting, 4 bits, packed attention."""
