"""The training loop: batches, sampling, model selection, weight averages, checkpoints and processes."""
