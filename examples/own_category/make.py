"""Make a small set for a category of your own, and measure a model on it.

A scripted server on loopback stands in for the models; with real ones in config.yaml, leave `base_url` out here.
"""

from pathlib import Path

import orbench
from orbench.testing import LoopbackServer, ScriptedGeneration

CONFIG = Path(__file__).with_name("config.yaml")

if __name__ == "__main__":
    with LoopbackServer(ScriptedGeneration()) as server:
        made = orbench.generate(CONFIG, base_url=server.base_url)
    print(made)
    result = orbench.evaluate("baseline/keyword-guard", splits=["hard-1k", "toxic"], data=made.folder / "splits")
    print(f"\n{result}")
