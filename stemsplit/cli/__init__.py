"""The command line: parse, check what is cheap, call one function."""
