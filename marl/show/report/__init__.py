"""A study as one page of HTML: its facts, its charts, its matrices, its films, and the page that holds them."""
