"""The built-in world: captioned scenes of colored shapes; rules can check every claim of a caption."""
