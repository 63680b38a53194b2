"""Songs and stems at URLs: where they are, and how they get to this machine and back."""
