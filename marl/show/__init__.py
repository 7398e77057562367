"""Output: curves, tables, heatmaps, recordings and windows."""
