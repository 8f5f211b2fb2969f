"""Claims of the papers, tried in the generated world: what each says, and whether it holds."""
