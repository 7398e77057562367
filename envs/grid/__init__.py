"""Small games on a grid, each a few compiled rules and a spec."""
