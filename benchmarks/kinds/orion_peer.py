"""Answer encrypted images by Orion 1.0.2, which wants older packages than fewbits: one image a line, one answer a line.

The network comes in an .npz: ``layers``, JSON of (name, kind, sizes), its weights by name, and images for Orion's fit.
Parameters are Orion's own of its MLP where they have levels enough, else longer ones of the next degree.
"""

import json
import sys
import time

import numpy as np
import orion
import orion.nn as on
import torch

MLP = {"LogN": 13, "LogQ": [29, 26, 26, 26, 26, 26], "LogP": [29, 29], "LogScale": 26, "H": 8192}
DEEPER = {"LogN": 14, "LogQ": [40, *[29] * 9], "LogP": [40, 40, 40], "LogScale": 29, "H": 16384}
KINDS = {
    "conv": lambda i, o, size, stride, padding: on.Conv2d(i, o, kernel_size=size, stride=stride, padding=padding),
    "linear": on.Linear,
    "square": on.Quad,
    "flatten": on.Flatten,
}
LEVELS = ("conv", "linear", "square")  # of a ciphertext, each takes one


class Chain(on.Module):
    def __init__(self, layers: list[tuple[str, str, list[int]]]) -> None:
        super().__init__()
        self.names = [f"layer{name}" for name, _, _ in layers]
        for name, (_, kind, sizes) in zip(self.names, layers, strict=True):
            setattr(self, name, KINDS[kind](*sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            x = getattr(self, name)(x)
        return x


def parameters(levels: int) -> dict:
    """The shortest chain of primes that is long enough; a ring of real numbers, so that all coefficients are slots."""
    found = MLP if levels < len(MLP["LogQ"]) else DEEPER
    return found | {"LogQ": found["LogQ"][: levels + 1], "RingType": "ConjugateInvariant"}


if __name__ == "__main__":
    with np.load(sys.argv[1]) as file:
        layers = json.loads(str(file["layers"]))
        images = torch.from_numpy(file["images"]).float()
        weights = {f"layer{name}": torch.from_numpy(file[name]) for name in file.files if name[0].isdigit()}
    chosen = parameters(sum(kind in LEVELS for _, kind, _ in layers))
    rest = {"margin": 2, "embedding_method": "hybrid", "backend": "lattigo", "fuse_modules": True, "debug": False}
    rest |= {"io_mode": "none", "diags_path": "", "keys_path": ""}
    orion.init_scheme({"ckks_params": chosen, "orion": rest})
    net = Chain(layers)
    net.load_state_dict(weights)
    net.eval()
    orion.fit(net, images[:1])
    level = orion.compile(net)
    net.he()
    bits = [*chosen["LogQ"], *chosen["LogP"]]
    facts = {"degree": 2 ** chosen["LogN"], "prime_bits": bits, "modulus_bits": float(sum(bits))}
    print("RESULT " + json.dumps(facts), flush=True)
    for line in sys.stdin:
        image = torch.tensor(json.loads(line))[None]
        given = orion.encrypt(orion.encode(image, level))
        start = time.process_time()
        answer = net(given)
        seconds = time.process_time() - start
        outputs = answer.decrypt().decode()
        print("RESULT " + json.dumps({"outputs": outputs.flatten().tolist(), "seconds": seconds}), flush=True)
