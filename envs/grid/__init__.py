"""Small games on a grid, each a pair of compiled kernels."""
