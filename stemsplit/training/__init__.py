"""Training of separation networks: recipe -> crops -> loss -> fit."""
