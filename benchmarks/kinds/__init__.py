"""What can be measured: a module each, with a function ``measure(unit, place)`` that returns the rows of a unit."""
