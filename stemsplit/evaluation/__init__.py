"""How good a model is: separate songs whose stems are known, score the result, compare models."""
