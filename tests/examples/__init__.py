"""The examples: what each compiles to is kept beside it."""
