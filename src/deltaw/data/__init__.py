"""Where prompts and completions come from, a file a source; and how a step's batch is made of them."""
