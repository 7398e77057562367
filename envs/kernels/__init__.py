"""What every compiled game builds on: how rules are compiled, one random stream per lane, calls over lanes."""
