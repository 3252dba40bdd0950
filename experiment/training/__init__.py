"""A training: build its parts, collect, update, log, save and restore, and end it."""
