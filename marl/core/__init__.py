"""Core: the data, the protocols and the small tools that every other layer builds on."""
