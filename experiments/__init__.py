"""The paper's tables and figures, each measured cell by cell and kept in a file of rows."""
