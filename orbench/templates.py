"""The prompt templates of /prompts: found, rendered, hashed.

In a checkout they lie beside the package, in an installed wheel inside it. Templates are Jinja files without
auto-escaping (they are read by models, not browsers) and with undefined names as errors.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from orbench.errors import TemplateError

if TYPE_CHECKING:
    import jinja2


def folder() -> Path:
    """The folder that holds the templates."""
    inside = Path(__file__).parent / "prompts"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "prompts"


def names() -> list[str]:
    """Names of the shipped templates, sorted."""
    return sorted(found.stem for found in folder().glob("*.jinja"))


def path(name: str) -> Path:
    """The file of a template.

    Args:
        name: Its file's stem, such as `judge-three-classes`, or a file of the user's own that ends with `.jinja`.

    Raises:
        TemplateError: There is none; the names that exist are listed.
    """
    if name.endswith(".jinja"):
        if not Path(name).is_file():
            raise TemplateError(f"{name}: there is no such file")
        return Path(name)
    file = folder() / f"{name}.jinja"
    if not re.fullmatch(r"[a-z0-9-]+", name) or not file.is_file():
        raise TemplateError(f"no template {name!r}: there are {', '.join(names())}")
    return file


class Template(msgspec.Struct, frozen=True):
    """A template's text as it was when it was read: what is asked with it and its digest stay of one piece."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """First 12 hexadecimal digits of the sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def render(self, **values: object) -> str:
        """The text with the values put in.

        Raises:
            TemplateError: It is no template, a value is missing, or what it computes fails.
        """
        import jinja2

        try:
            return _compiled(self.text).render(**values)
        except jinja2.TemplateError as error:
            raise TemplateError(f"template {self.name!r}: {error.message}") from None
        except Exception as error:  # what a template computes can fail in any way
            problem = f"cannot be rendered: {type(error).__name__}: {error}"
            raise TemplateError(f"template {self.name!r}: {problem}") from None


def load(name: str) -> Template:
    """Read a template.

    Args:
        name: As in `path`.

    Raises:
        TemplateError: There is none, or it cannot be read.
    """
    file = path(name)
    try:
        # as the bytes are, so that the digest is that of the file
        return Template(name, file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise TemplateError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TemplateError(f"template {name!r}: not text in UTF-8 (byte {error.start}); save it as UTF-8") from None


def digest(name: str) -> str:
    """The digest of a template as it is now; see `Template`."""
    return load(name).digest


def render(name: str, /, **values: object) -> str:
    """The text of a template as it is now, with the values put in.

    Raises:
        TemplateError: No such template, it is none, a value is missing, or what it computes fails.
    """
    return load(name).render(**values)


@lru_cache(maxsize=64)
def _compiled(text: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701
    return environment.from_string(text)
