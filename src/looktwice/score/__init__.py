"""The second look: how likely a frozen multimodal LLM finds that a candidate answers the query."""
