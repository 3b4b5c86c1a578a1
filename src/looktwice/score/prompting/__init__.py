"""From a pair to the text and images that a model is shown."""
