"""Search: shortlist, second look, fused hits."""
