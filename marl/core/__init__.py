"""Core: the data, the protocols and the small tools that every other floor builds on."""
