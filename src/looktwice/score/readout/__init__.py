"""From the next token to a score."""
