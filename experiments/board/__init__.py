"""The board: how much reward each method earns for its reward calls and seconds."""
