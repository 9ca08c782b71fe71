"""A server of the small private program, as a process: ``python private_server.py FOLDER LIMITS [KEYS ...]``.

LIMITS is JSON. A file ``die`` or ``sleep`` in FOLDER lets the next request's worker end at once, or take long.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from fewbits.errors import FewbitsError
from fewbits.private.address import listen
from fewbits.private.limits import Limits
from fewbits.private.server import Server
from fewbits.private.tls import server_tls


class Obedient:
    """The program, but for what files in the folder tell it."""

    def __init__(self, program: Any, folder: Path) -> None:
        self.profile, self._program, self._folder = program.profile, program, folder

    def run(self, evaluator: Any, ciphertexts: Any) -> Any:
        for name, act in (("die", lambda: os._exit(9)), ("sleep", lambda: time.sleep(60))):
            if (self._folder / name).exists():
                (self._folder / name).unlink()
                act()
        return self._program.run(evaluator, ciphertexts)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from private_programs import small_program

    folder, told, *keys = sys.argv[1:]
    options = json.loads(told)
    tls = server_tls(*map(Path, options.pop("tls"))) if "tls" in options else None
    mac = bytes.fromhex(options.pop("mac")) if "mac" in options else None
    server = Server(
        Obedient(small_program(), Path(folder)),  # type: ignore[arg-type]
        Limits(**options),
        mac_key=mac,
        tls=tls,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    try:
        server.run(
            listen("127.0.0.1", 0), keys=[Path(key) for key in keys], ready=lambda host, port: print(port, flush=True)
        )
    except FewbitsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
