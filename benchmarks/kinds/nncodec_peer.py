"""Code the integer arrays of an .npz with NNCodec, which wants older packages than fewbits: how big and how fast."""

import json
import os
import sys
import tempfile
import time

import numpy as np
from nncodec import nnc

if __name__ == "__main__":
    with np.load(sys.argv[1]) as file:
        levels = {name: file[name].astype(np.int32) for name in file.files}
    encoding, decoding = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "levels.nnc")
        options = {"param_opt": True, "use_dq": False, "return_bitstream": True, "verbose": False}
        for _ in range(int(sys.argv[2])):
            begin = time.process_time()
            nnc.compress(levels, bitstream_path=path, **options)
            middle = time.process_time()
            back = nnc.decompress(path)
            decoding.append(time.process_time() - middle)
            encoding.append(middle - begin)
        size = os.path.getsize(path)
    exact = all(np.array_equal(np.asarray(back[name]), array) for name, array in levels.items())
    print("RESULT " + json.dumps({"bytes": size, "encoding": encoding, "decoding": decoding, "exact": exact}))
