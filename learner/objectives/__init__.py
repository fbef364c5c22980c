"""Pure functions on tensors: log-probabilities in, (loss, statistics) out. torch only."""
