"""VBench, Huang et al. (2024): videos of its prompts, judged by the installed package, in the form of the paper's table."""
