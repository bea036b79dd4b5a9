"""The paper's tables and figures, as runs whose results are rows of a file."""
