"""Files: written whole or not at all; weights, videos and downloads."""
