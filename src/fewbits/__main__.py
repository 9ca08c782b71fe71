"""``python -m fewbits``, which is also what launchers of several processes start."""

from __future__ import annotations

from fewbits.cli.app import main

if __name__ == "__main__":
    main()
