"""Measuring: matrices of teams against attacks and partners, and everything that stands in them."""
