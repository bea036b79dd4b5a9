"""The built-in world: captioned scenes that a rule can check, models trained on them, and everything that needs them."""
