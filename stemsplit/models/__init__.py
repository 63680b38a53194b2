"""From the name of a model to verified files, and from those to networks that run."""
