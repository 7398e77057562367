"""Games with a few states, for claims that can be checked by hand."""
