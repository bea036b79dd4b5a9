"""``python -m rlr.toy.demo``: aligns the built-in model, measures it before and after, and draws what changed."""
