"""The basis of every compiled game: compilation of rules, a random stream per lane, loops over lanes."""
