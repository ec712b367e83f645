"""A recorded demand played again under other limits, by the same rules, on a virtual clock."""
