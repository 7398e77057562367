"""Parts that several attacks share, beside ``attacks.base``."""
