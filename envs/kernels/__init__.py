"""What every compiled game builds on: how rules are compiled, a random stream per lane, loops over lanes."""
