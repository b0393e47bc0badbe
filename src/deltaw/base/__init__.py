"""The bundled base: a small Llama with its tokenizer (see README.md here), so that the default needs no download."""

from pathlib import Path

BUNDLED = Path(__file__).parent
