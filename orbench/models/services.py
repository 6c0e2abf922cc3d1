"""Services that speak OpenAI's formats: one row each, with what is special to them.

Checked against the services' own documentation in November 2026; docs/providers.md says what each quirk is for.
"""

from __future__ import annotations

import msgspec


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service is, which variable holds its key, and how it differs from OpenAI."""

    name: str
    """The provider's name in `provider/name`."""
    base_url: str | None = None
    """Its address; None where each customer has another one."""
    key_variable: str | None = None
    """Environment variable with the key; None where there is none."""
    needs_key: bool = True
    """False where a server may run without one."""
    base_url_variable: str = ""
    """Environment variable that overrides the address; `NAME_BASE_URL` unless the vendor has its own."""
    path: str = ""
    """Appended to an address that is a host alone."""
    key_header: str = "Authorization"
    """Header that carries the key; any other than `Authorization` carries it without `Bearer`."""
    seed_field: str = "seed"
    """What it calls the seed."""
    blocked_words: tuple[str, ...] = ()
    """Messages of errors that mean a filtered prompt."""
    forbidden_is_request: bool = False
    """True where status 403 is about one request, not about the account."""
    has_batches: bool = False
    """True where it has OpenAI's Batch API."""

    def __post_init__(self) -> None:
        """Fill in the usual name of the address variable."""
        if not self.base_url_variable:
            variable = f"{self.name.upper().replace('-', '_')}_BASE_URL"
            msgspec.structs.force_setattr(self, "base_url_variable", variable)


SERVICES = {
    service.name: service
    for service in (
        Service(name="openai", base_url="https://api.openai.com/v1", key_variable="OPENAI_API_KEY", has_batches=True),
        Service(
            name="azure",
            key_variable="AZURE_OPENAI_API_KEY",
            base_url_variable="AZURE_OPENAI_ENDPOINT",
            path="/openai/v1",
            key_header="api-key",
        ),
        Service(
            name="deepseek",
            base_url="https://api.deepseek.com/v1",
            key_variable="DEEPSEEK_API_KEY",
            blocked_words=("Content Exists Risk",),
        ),
        Service(name="fireworks", base_url="https://api.fireworks.ai/inference/v1", key_variable="FIREWORKS_API_KEY"),
        Service(name="groq", base_url="https://api.groq.com/openai/v1", key_variable="GROQ_API_KEY"),
        Service(
            name="mistral",
            base_url="https://api.mistral.ai/v1",
            key_variable="MISTRAL_API_KEY",
            seed_field="random_seed",
        ),
        Service(name="ollama", base_url="http://localhost:11434/v1", needs_key=False),
        Service(name="openrouter", base_url="https://openrouter.ai/api/v1", key_variable="OPENROUTER_API_KEY"),
        Service(
            name="together",
            base_url="https://api.together.xyz/v1",
            key_variable="TOGETHER_API_KEY",
            forbidden_is_request=True,
        ),
        Service(name="vllm-server", base_url="http://localhost:8000/v1", key_variable="VLLM_API_KEY", needs_key=False),
        Service(
            name="xai",
            base_url="https://api.x.ai/v1",
            key_variable="XAI_API_KEY",
            blocked_words=("violates usage guidelines",),
        ),
    )
}
"""Provider name to its row."""
