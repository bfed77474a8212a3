"""From the model to the intermediate representation: the stateful pass."""
