"""What other people's tools know the language by: those of textX, and those that use Pygments."""
