"""A study as one page of HTML: its facts, charts, matrices and recordings, and the page that holds them."""
