"""Search: find a shortlist, rerank it, fuse scores into hits."""
