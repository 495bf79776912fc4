"""Event histories as tensors: tokens, vocabulary, season, readouts and batches."""
