"""Evaluate local weights with transformers. Needs the extra `hf`; takes a folder or a Hub id as argument.

Without an argument a tiny model is made on the spot, so that the example runs anywhere.
"""

import sys
import tempfile

import orbench
from orbench.testing import make_tiny_model

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(make_tiny_model(folder + "/tiny"))
        result = orbench.evaluate(f"hf/{path}", splits="sample", max_tokens=32)
        print(result)
