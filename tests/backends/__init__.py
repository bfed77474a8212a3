"""What the targets emit, read back and loaded."""
