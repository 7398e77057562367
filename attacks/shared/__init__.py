"""Parts that several attacks share, in addition to ``attacks.base``."""
