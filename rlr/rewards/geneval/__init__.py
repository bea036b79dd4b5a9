"""GenEval: whether an image shows the objects of its prompt, by number, color and position."""
