"""Songs whose stems are known: found, indexed, checked and read."""
