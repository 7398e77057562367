"""Games from other packages, as lanes of a process pool."""
