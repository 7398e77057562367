"""Parts that the algorithms of more than one paper are made of."""
