"""The top: the pipeline, the queue, placement, metrics export and every `python -m` command."""
