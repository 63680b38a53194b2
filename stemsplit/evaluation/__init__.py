"""Evaluation: separate songs whose stems are known, score the result, compare models."""
