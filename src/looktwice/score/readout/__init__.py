"""Turn next-token logits into a score."""
