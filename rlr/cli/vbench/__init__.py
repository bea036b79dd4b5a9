"""``python -m rlr.cli.vbench``: samples the videos of VBench's prompts, and scores them."""
