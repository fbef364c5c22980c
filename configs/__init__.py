"""Declarations: what a run is, what travels, what is measured. pydantic and numpy only."""
