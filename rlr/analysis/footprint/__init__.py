"""How much memory training takes, estimated without data: from networks whose tensors have shapes and no content."""
