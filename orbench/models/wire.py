"""One JSON request over HTTP, and what its failure means; the same for every vendor.

The vendors' SDKs resolve addresses, keys and headers; their request builders, transports and response models cost
more than the wire does (docs/performance.md). So the request goes through an aiohttp session, the transport under
all three SDKs, with the trust store, the proxies and the refusal to follow redirects that the SDKs' own would have.
"""

from __future__ import annotations

import datetime
import email.utils
import io
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from orbench.errors import ModelError
from orbench.models.base import CallError, RejectedError, RetryableError
from orbench.models.keys import hide, hide_all, without_keys
from orbench.models.rate_limits import RateLimits, read_rate_limits, seconds_until

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S = 300.0
"""Seconds after which one call is given up and tried again: beyond what 1000 tokens take anywhere."""
CONNECT_TIMEOUT_S = 30.0
"""Seconds that opening a connection may take."""
MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Longest body that is read; a reply that never ends is cut there."""
_LARGE = 1 << 20
_JSON = "application/json"
_TELEMETRY = "x-stainless-"
"""Headers in which the SDKs tell system, processor and Python of whoever asks; no service needs them."""
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
_LONGEST_SAID = 10_000
"""Characters of an error in which its meaning is looked for."""
_WORD = re.compile(r"[A-Za-z0-9_]+|[^\x00-\x7f]")
"""A word, or a letter of a script that may do without spaces."""
_LOGIN = re.compile(r"://[^/\s'\"]*@")
_REFUSED_KEY = re.compile(r"API_KEY_INVALID|(?:incorrect|invalid) api key|api key (?:not valid|expired)", re.IGNORECASE)
_NO_QUOTA = re.compile(r"insufficient_quota|billing|credit balance is too low|insufficient balance", re.IGNORECASE)
_NO_QUOTA_CODE = re.compile(r"insufficient_quota|billing_", re.IGNORECASE)
"""Codes that say so. With status 429 they alone do: in their messages Gemini and Groq name billing at every limit a
minute."""
_NO_MODEL = re.compile(r"model_not_found|\b(?:invalid|unknown) model\b|not a valid model", re.IGNORECASE)


ALLOWED = "let the account use it, or choose another model; the same command goes on once it may"
"""What to do where access is denied."""


class HttpError(CallError):
    """A status other than 200, before the provider has said what it means.

    Attributes:
        status: Such as 400.
        body: What came with it.
        headers: Its headers.
        sent: The body of the request, which the service may repeat in its error; None where it is not known.
    """

    def __init__(
        self, status: int, body: bytes, headers: Mapping[str, str], sent: Mapping[str, Any] | None = None
    ) -> None:
        """Keep what came."""
        self.sent = sent
        self.status = status
        self.body = body
        self.headers = headers
        super().__init__(f"HTTP {status}: {self.message}")

    @property
    def error(self) -> dict[str, Any]:
        """The body's `error` object; empty if it has none."""
        try:
            content = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}
        if isinstance(content, list) and content:
            content = content[0]
        error = content.get("error", content) if isinstance(content, dict) else content
        return error if isinstance(error, dict) else {"message": str(error)}

    @property
    def is_page(self) -> bool:
        """Whether the body is no JSON: it comes from something on the way, not from the service."""
        return not self.error

    @property
    def codes(self) -> str:
        """Everything in the body that names the kind of error: `code`, `type` and `status`, the inner error's too."""
        error = self.error
        inner = error.get("innererror")
        named = [error.get("code"), error.get("type"), error.get("status")]
        named.append(inner.get("code") if isinstance(inner, dict) else None)
        return " ".join(str(code) for code in named if code)

    @property
    def param(self) -> str | None:
        """The field of the request that the service names apart from its message; None if it names none."""
        param = self.error.get("param") or next(_found("loc", self.error), None)
        if isinstance(param, list):
            param = ".".join(map(str, param))
        return param if isinstance(param, str) else None

    @property
    def words(self) -> str:
        """All that the service says of its own: every text of its error, without what repeats the prompt."""
        if self.is_page:
            said = self.body[:_LONGEST_SAID].decode("utf-8", "replace")
        else:
            said = " ".join(_texts(self.error))[:_LONGEST_SAID]
        return without_echo(said, _prompt_texts(self.sent))

    @property
    def message(self) -> str:
        """What the service says was wrong, in one line."""
        text = str(self.error.get("message") or self.body[:300].decode("utf-8", "replace"))
        return " ".join(text.split())[:300]


_PROMPT_FIELDS = ("messages", "input", "contents", "system", "systemInstruction")
"""What the services call the field that holds prompt or system prompt."""
_RUN = 4


def without_echo(said: str, asked: Iterable[str]) -> str:
    """What is said, without the words of what was asked.

    Four words in a row that stand in the prompt too come from there, however they are quoted, escaped or cut; a shorter
    prompt is found as a whole.
    """
    words = list(_WORD.finditer(said))
    told = [word.group().lower() for word in words]
    repeated: set[int] = set()
    for text in asked:
        of_prompt = [word.lower() for word in _WORD.findall(text)]
        length = min(_RUN, len(of_prompt))
        if length == 0:
            continue
        runs = {tuple(of_prompt[start : start + length]) for start in range(len(of_prompt) - length + 1)}
        for start in range(len(told) - length + 1):
            if tuple(told[start : start + length]) in runs:
                repeated.update(range(start, start + length))
    kept, end = [], 0
    for number in sorted(repeated):
        kept.append(said[end : words[number].start()])
        end = words[number].end()
    return "".join([*kept, said[end:]])


def _prompt_texts(sent: Mapping[str, Any] | None) -> list[str]:
    fields = [sent[name] for name in _PROMPT_FIELDS if name in sent] if sent else []
    return list(_texts(msgspec.to_builtins(fields)))


def _texts(value: Any) -> Iterator[str]:
    """Every text within, but under `input`, where pydantic repeats what it was given, and who speaks."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("input", "role"):
                yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _found(name: str, value: Any) -> Iterator[Any]:
    """Every value of that name, however deep."""
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for inner in value.values():
            yield from _found(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _found(name, inner)


class DeniedError(ModelError):
    """Status 403: the account may not do this, or something on the way (a firewall) does not like one request."""


class Wire:
    """The connections to one service for one model: posts bodies, counts nothing, retries nothing.

    Attributes:
        url: Where bodies are posted.
        headers: Sent with each of them, the key among them.
        timeout_s: Seconds for one whole exchange.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float | None = None) -> None:
        """Keep the address; nothing is opened before the first call."""
        self.url = url
        self.headers = {name: value for name, value in headers.items() if not name.lower().startswith(_TELEMETRY)}
        self.timeout_s = timeout_s or TIMEOUT_S
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}
        self._answered: Mapping[str, str] = {}

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the last reply's headers said is left of the account's limits; None where they said nothing."""
        return read_rate_limits(self._answered)

    async def post(self, body: object) -> bytes:
        """Send a JSON body and return that of a reply with status 200.

        Raises:
            HttpError: Another status. A key that the body repeats is taken out of it.
            RejectedError: The body cannot be sent, or the reply is too long to be read.
            RetryableError: No whole reply came: connection lost or refused, time over.
            ModelError: The address cannot be used.
        """
        try:
            encoded = msgspec.json.encode(body)
        except UnicodeEncodeError as error:
            raise RejectedError(f"the prompt holds what UTF-8 cannot carry: {error.reason}") from None
        return await self.send("POST", self.url, encoded)

    async def send(
        self,
        method: str,
        url: str,
        content: Any = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Send any request, as `post` does, and return the body of a reply with status 200.

        Args:
            method: Such as `GET`.
            url: Absolute address, on the same host as `self.url`: the key goes with it.
            content: JSON as bytes or in an open file, or an `aiohttp.FormData`.
            timeout_s: Instead of `self.timeout_s`.
        """
        import aiohttp

        session = self._session or self._open()
        more: dict[str, Any] = {}
        if timeout_s is not None:
            more["timeout"] = aiohttp.ClientTimeout(timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with session.request(
                method, url, data=_payload(content), allow_redirects=False, proxy=self._proxy(url), **more
            ) as response:
                found = await _read(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(error, url) from None
        self._answered = response.headers
        if response.status != 200:
            raise HttpError(response.status, self.without_key(found), response.headers)
        return found

    async def lines(self, url: str) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a reply of any length as they come; raises as `send` does.

        Time is up when nothing has come for `timeout_s`. A reply that breaks off raises `RetryableError`.
        """
        import aiohttp

        session = self._session or self._open()
        waits = aiohttp.ClientTimeout(None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self.timeout_s)
        rest = b""
        try:
            async with session.get(url, allow_redirects=False, proxy=self._proxy(url), timeout=waits) as response:
                if response.status != 200:
                    raise HttpError(response.status, self.without_key(await _read(response)), response.headers)
                async for chunk in response.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
                    if len(rest) > MAX_REPLY_BYTES:
                        raise RejectedError(f"a line of {url} is longer than {MAX_REPLY_BYTES >> 20} MB")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(error, url) from None
        if rest:
            yield rest

    def _failed(self, error: Exception, url: str) -> Exception:
        """What to raise for an exchange that gave no whole reply."""
        import aiohttp

        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return RetryableError(f"cannot reach {url}: no connection in time", unreachable=True)
        if isinstance(error, TimeoutError):
            return RetryableError(f"no reply within {self.timeout_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return RetryableError(f"cannot reach {url}: {_why(error)}", unreachable=True)
        if isinstance(error, aiohttp.ClientHttpProxyError):
            said = without_keys(f"the proxy on the way to {url} says {error.status} {error.message}")
            if error.status in (401, 403, 407):
                return ModelError(f"{said}; check the user and password in {urlsplit(url).scheme.upper()}_PROXY")
            return RetryableError(said, unreachable=True)
        told = without_keys(_without_login(str(error), self._proxy(url)))
        if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError)):
            return ModelError(f"{url}: not an address that can be asked ({told})")
        return RetryableError(f"connection failed: {type(error).__name__}: {told}")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def without_key(self, content: bytes) -> bytes:
        """Some services repeat a refused key in full; error messages end in files and terminals.

        Ours goes, and any other that the environment holds: what lies in between may know several.
        """
        for name, value in self.headers.items():
            if name.lower() in _KEY_HEADERS:
                content = hide(value.removeprefix("Bearer "), content)
        return hide_all(content)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        secure: Any = True
        if urlsplit(self.url).scheme == "https":
            import httpx2

            secure = httpx2.create_ssl_context()  # the SDKs' own: the system's trust store, always verified
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=secure),  # the engine says how many calls are open
            headers={name: value for name, value in self.headers.items() if name.lower() != "content-type"},
            timeout=aiohttp.ClientTimeout(total=self.timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    def _proxy(self, url: str) -> str | None:
        """The proxy that the environment names for that host; looked up once, not for every call."""
        if url not in self._proxies:
            from urllib.request import getproxies, proxy_bypass

            parts = urlsplit(url)
            bypassed = _is_local(parts.hostname or "") or proxy_bypass(parts.netloc)
            self._proxies[url] = None if bypassed else getproxies().get(parts.scheme)
        return self._proxies[url]


def _payload(content: Any) -> Any:
    """What aiohttp sends as it is: it would look for the right class, and for the type of each body, anew."""
    from aiohttp import payload

    if isinstance(content, bytes) and len(content) < _LARGE:
        return payload.BytesPayload(content, content_type=_JSON)
    if isinstance(content, bytes):  # a large one is sent piece by piece
        return payload.BytesIOPayload(io.BytesIO(content), content_type=_JSON)
    if isinstance(content, io.BufferedReader):
        return payload.BufferedReaderPayload(content, content_type=_JSON)
    return content


def _without_login(text: str, proxy: str | None) -> str:
    """The text without user and password of any address in it, in whatever form the proxy's stands there."""
    if proxy and "@" in proxy:
        login = proxy.rpartition("@")[0].rpartition("//")[2]
        for secret in {login, unquote(login), *login.split(":")[1:], *map(unquote, login.split(":")[1:])} - {""}:
            text = text.replace(secret, "[login]")
    return _LOGIN.sub("://", text)


def _why(error: aiohttp.ClientConnectorError) -> str:
    if certificate := getattr(error, "certificate_error", None):
        return str(certificate)
    return error.os_error.strerror or str(error.os_error)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= MAX_REPLY_BYTES and "Content-Encoding" not in response.headers:
        return await response.read()
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            response.close()
            raise RejectedError(f"the reply is longer than {MAX_REPLY_BYTES >> 20} MB")
    return b"".join(chunks)


def meaning(error: HttpError, model: str, key_variable: str | None, url: str, wait_s: float | None = None) -> Exception:
    """The error to raise for a status, the same for all services; what is special to one is told apart before.

    Wrong key, no access, no quota and unknown model stop the run; a service that is busy or broken, or says how long
    to wait, is asked again; anything else concerns this request alone.

    Args:
        error: What came.
        model: Its name, for the message.
        key_variable: The variable that holds its key.
        url: What was asked.
        wait_s: Seconds that the body asks to wait; by default those of the headers.
    """
    status = error.status
    wait_s = retry_after(error.headers) if wait_s is None else wait_s
    said = error.words if status in (400, 403) else ""
    if status == 401 or (status == 400 and _REFUSED_KEY.search(said)):
        key = f"; check {key_variable}" if key_variable else ""
        return ModelError(f"{model}: the key was refused ({status}: {error.message}){key}")
    used_up = wait_s is None and bool(_NO_QUOTA_CODE.search(error.codes))
    if status == 402 or (status == 429 and used_up) or (status in (400, 403) and _NO_QUOTA.search(said)):
        return ModelError(
            f"{model}: no quota left ({status}: {error.message}); add credit to the account or raise its limit, and "
            "the same command goes on"
        )
    if status in (403, 412):
        kind = DeniedError if status == 403 else ModelError
        return kind(f"{model}: access denied ({status}: {error.message}); {ALLOWED}")
    if status == 407:
        return ModelError(
            f"{model}: the proxy wants a login (407); write it as HTTP_PROXY=http://user:password@host:port"
        )
    if status == 404 or (status == 400 and _NO_MODEL.search(said)):
        return ModelError(
            f"{model}: not found at {url} ({status}: {error.message}); check the model's name and --base-url"
        )
    if status in (408, 409, 425, 429, 498) or status >= 500:
        busy = status in (429, 498, 503, 529)
        return RetryableError(str(error), retry_after=wait_s, overloaded=busy)
    if 300 <= status < 400:
        return ModelError(f"{url} redirects elsewhere ({status}); give the final address with --base-url")
    return RejectedError(str(error))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the service asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            then = email.utils.parsedate_to_datetime(value)
            return seconds_until(then if then.tzinfo else then.replace(tzinfo=datetime.UTC), headers)
    except (ValueError, OverflowError):
        return None


def split_address(url: str) -> SplitResult | None:
    """The parts of an address of the web, with a host; None if it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return None
    return parts if usable else None


def is_plain(address: SplitResult) -> bool:
    """Whether it holds neither name, password, query nor fragment: any of them may be a key, and is saved with it."""
    return not ("@" in address.netloc or address.query or address.fragment)


def check_address(base_url: str, model: str, has_key: bool) -> None:
    """Refuse what is no address, and warn of a key that would travel unencrypted.

    Raises:
        ModelError: Not an address, or one that holds a password or query, which would be saved with the run.
    """
    parts = split_address(base_url)
    if parts is None:
        said = "the base URL" if set("@?#") & set(base_url) else repr(base_url)  # these may come before or after a key
        raise ModelError(f"{model}: {said} is no address; write it as http://host:port/v1")
    if not is_plain(parts):
        raise ModelError(f"{model}: the base URL holds more than http://host:port/path; a key goes into its variable")
    assert parts.hostname is not None
    if parts.scheme == "http" and not _is_local(parts.hostname):
        import warnings

        from orbench.errors import OrbenchWarning

        what = "prompts and key included" if has_key else "prompts included"
        warnings.warn(f"{model}: {parts.hostname} is asked without encryption, {what}", OrbenchWarning, stacklevel=3)


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
