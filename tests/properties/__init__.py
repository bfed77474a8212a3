"""Laws that hold for all values, tried with generated ones."""
