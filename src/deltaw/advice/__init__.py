"""Which rank: the answer from paired losses on judged examples."""
