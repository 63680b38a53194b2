"""The web page on which a separated song is listened to."""
