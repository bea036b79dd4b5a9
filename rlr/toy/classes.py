"""The built-in world's classes, imported so that configs can name them without their module paths."""
