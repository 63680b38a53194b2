"""Many songs: which they are, where their stems go, what is done already, and running them."""
