"""What the folder of a run holds, read without torch: tables of runs, the page of a run, and comparisons of runs."""
