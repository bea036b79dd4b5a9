"""The built-in world: captioned scenes of coloured shapes whose every claim a rule can check."""
