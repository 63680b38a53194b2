"""Separation networks, one family a module, and what the families share (`families` has their contract)."""
