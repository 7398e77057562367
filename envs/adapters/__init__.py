"""Games of other packages, as lanes of a process pool."""
