"""The app: a page in the browser, served on this machine, for people who do not use a terminal."""
