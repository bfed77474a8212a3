"""What was written: grammar, tree, parser, loader."""
