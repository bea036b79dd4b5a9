"""What the demo measures and shows."""
