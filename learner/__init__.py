"""Consumes preference tuples: objectives, log-probabilities, the step, the DeepSpeed engine."""
