"""Separation networks: one family a module; `families` states the contract that they keep and lists them."""
