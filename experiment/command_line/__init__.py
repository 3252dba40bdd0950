"""The words of a command line, composed to a typed config, and the text of `--help`."""
