"""The version of stemsplit, and the name under which it is installed; the one place where they are written."""

__version__ = "0.1.0"
DISTRIBUTION = "stemsplit-audio"  # pip install ..., unlike the command and the import: stemsplit was taken
