"""From a data set to the batch of a step: sources of rows, records, an encoder per task, a cached corpus, batches."""
