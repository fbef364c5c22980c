"""Plain classes that produce preference tuples: prompts, student sampler, teacher server."""
