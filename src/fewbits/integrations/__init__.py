"""A compression inside of other libraries' training loops; each module needs its library, and imports it."""
