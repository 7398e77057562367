"""Measurement: matrices of teams against attacks and partners, and everything that goes into them."""
