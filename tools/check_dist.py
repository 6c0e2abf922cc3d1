"""Is in the built files what belongs there, and nothing else? `python tools/check_dist.py dist/*`, exit code 1 if not.

In: a wheel and a source archive. The names are compared, not the contents.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = (
    "orbench/py.typed",
    "orbench/splits/sample.csv",
    "orbench/scoring/phrases.tsv",
    "orbench/integrations/lm_eval/_orbench_yaml",
    "orbench/integrations/lm_eval/orbench_hard_1k.yaml",
    "orbench/report/html/page.html.jinja",
)
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "constraints.txt")
STRANGE = ("tests/", "benchmarks/", "runs/", ".ci/", ".git/", "__pycache__", ".jsonl", ".ipynb")
FIELDS = (
    "Name",
    "Version",
    "Summary",
    "Requires-Python",
    "License-Expression",
    "Keywords",
    "Author",
    "Description-Content-Type",
)


def main(files: list[str]) -> int:
    """Print what is wrong with each file."""
    prompts = sorted(path.name for path in (ROOT / "prompts").iterdir())
    found: list[str] = []
    for file in files:
        if file.endswith(".whl"):
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                info = next(name.rpartition("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
                metadata = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
                entries = archive.read(f"{info}/entry_points.txt").decode()
            needed = [*NEEDED, *(f"orbench/prompts/{name}" for name in prompts), f"{info}/licenses/LICENSE"]
            found += [f"{file}: no {field} in its metadata" for field in FIELDS if not metadata[field]]
            found += [f"{file}: no entry point {name}" for name in ("orbench =", "[inspect_ai]") if name not in entries]
            found += [f"{file}: holds {name}" for name in names if not name.startswith(("orbench/", info))]
        else:
            with tarfile.open(file) as archive:
                names = [name.partition("/")[2] for name in archive.getnames()]
            needed = [*NEEDED, *SOURCE, *(f"prompts/{name}" for name in prompts)]
        found += [f"{file}: {name} is missing" for name in needed if name not in names]
        found += [f"{file}: holds {name}" for name in names if any(strange in name for strange in STRANGE)]
    print("\n".join(found) or f"{len(files)} files, nothing missing and nothing strange")
    return bool(found) or not files


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
