"""Showing: curves, tables, heatmaps, films and windows."""
