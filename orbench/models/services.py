"""Services that speak OpenAI's chat completions format: one row each."""

from __future__ import annotations

import msgspec


class Service(msgspec.Struct, frozen=True):
    """Where a service is and which variable holds its key."""

    name: str
    """The provider's name in `provider/name`."""
    base_url: str | None
    """Its address; None where each customer has another one."""
    key_variable: str | None
    """Environment variable with the key; None where no key is needed."""

    @property
    def base_url_variable(self) -> str:
        """Environment variable that overrides the address, as in `OPENAI_BASE_URL`."""
        return f"{self.name.upper().replace('-', '_')}_BASE_URL"


SERVICES = {
    service.name: service
    for service in (
        Service("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        Service("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        Service("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
        Service("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        Service("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
        Service("ollama", "http://localhost:11434/v1", None),
        Service("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        Service("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
        Service("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
    )
}
"""Provider name to its row."""
