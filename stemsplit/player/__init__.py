"""The player: a web page that plays the stems of a song."""
