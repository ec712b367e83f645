"""Pure decisions: no I/O, clock, chance, logging or network. Time and chance are arguments."""
