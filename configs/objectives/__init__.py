"""One section per objective; `configs/objective.py` joins them into a union keyed on ``type``."""
