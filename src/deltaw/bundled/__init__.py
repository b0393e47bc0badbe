"""The bundled base: a small Llama with its tokenizer (see README.md here), and how it was made."""
