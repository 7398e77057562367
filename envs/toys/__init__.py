"""Games of a few states, for claims that can be checked by hand."""
