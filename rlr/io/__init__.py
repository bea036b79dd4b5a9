"""Files: atomic writes, weights, published weights, videos, and values by key."""
