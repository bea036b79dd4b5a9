"""``python -m rlr.cli.demo``: aligns the built-in model, measures it before and after, and draws what changed."""
