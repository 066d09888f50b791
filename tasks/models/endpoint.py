"""Chat requests to an OpenAI-compatible endpoint: the judge's and the teacher's model.

The key is read from the environment with every request; no artifact, log or error holds it.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import HttpUrl, ValidationError

if TYPE_CHECKING:
    from openai import APIStatusError, Omit, OpenAI
    from PIL import Image

T = TypeVar("T")
Message = dict[str, Any]

ATTEMPTS = 8  # with the client's pauses of 0.5, 1, 2, 4, 8, 8 and 8 s: half a minute
_QUOTED = 300  # characters of a response in an error
_REFUSES_ONE_REQUEST = (400, 413, 422)
_BUSY = (408, 409, 429)  # and 5xx: what the client sends again
# The client would take the first two from the environment and describe this machine in the others.
_NOT_SENT = (
    "OpenAI-Organization",
    "OpenAI-Project",
    "X-Stainless-OS",
    "X-Stainless-Arch",
    "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version",
)


class EndpointError(RuntimeError):
    """The endpoint is out of reach or refuses requests; the message names it and what to check."""


class Unanswered(EndpointError):
    """This single request was refused, or its answer holds no text; others may succeed."""


class Endpoint:
    """A model behind `URL/chat/completions`. Safe to share between threads."""

    def __init__(
        self, url: str, model: str, key_variable: str = "OPENAI_API_KEY", timeout: float = 120.0, parallel: int = 8
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: where the API begins, for example http://localhost:8000/v1.
            model: its name at the endpoint.
            key_variable: environment variable that holds the key; where it isn't set, none is sent.
            timeout: seconds that one request may take.
            parallel: requests at the same time in `chat_each`.

        Raises:
            EndpointError: not an HTTP URL, or one with a name, a password or a query: it would be stored with the results.
        """
        try:
            parts = HttpUrl(url)
        except ValidationError:  # quotes the URL
            raise EndpointError("endpoint url: not valid, want http(s)://HOST[:PORT]/v1") from None
        if parts.username or parts.password or parts.query:
            raise EndpointError(
                f"endpoint url at {parts.host}: no name, password or query in it, for it is kept with the results; "
                f"put the key into the environment variable {key_variable}"
            )
        self.url, self.model, self.key_variable = str(parts).rstrip("/"), model, key_variable
        self.timeout, self.parallel = timeout, max(1, parallel)
        self._on_this_machine = _is_loopback(parts.host or "")

    def chat(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
        seed: int | None = None,
    ) -> str:
        """The answer to a conversation; what is None is not sent. Sent again while the endpoint is busy or out of reach.

        Raises:
            Unanswered: it refuses this request (400, 413, 422), or its answer holds no text.
            EndpointError: it refuses all of them, fails `ATTEMPTS` times, or is no such endpoint.
        """
        import openai

        key = os.environ.get(self.key_variable, "") if self.key_variable else ""
        headers: dict[str, str | Omit] = dict.fromkeys(_NOT_SENT, openai.omit)
        headers["Authorization"] = f"Bearer {key}" if key else openai.omit
        try:
            response = self._client.chat.completions.create(
                model=self.model,
                messages=list(messages),  # type: ignore[arg-type]  # plain dictionaries
                temperature=_or_omit(temperature),
                max_tokens=_or_omit(max_tokens),
                seed=_or_omit(seed),
                extra_headers=headers,
            )
        except openai.APIStatusError as error:
            failure = self._refusal(error, key)
        except openai.APIConnectionError as error:
            failure = self._not_reached(type(error.__cause__ or error).__name__)
        except ValueError:  # declared as JSON, but it is not
            failure = self._not_compatible()
        else:
            return self._text_of(response)
        raise failure  # out here, so that it does not carry the client's error, which may quote the key

    def chat_each(
        self, conversations: Sequence[Sequence[Message]], *, max_tokens: int | None = None
    ) -> Iterator[str | EndpointError]:
        """Each conversation's answer, or its error, in order; `parallel` requests at the same time."""

        def answer(messages: Sequence[Message]) -> str | EndpointError:
            try:
                return self.chat(messages, max_tokens=max_tokens)
            except EndpointError as error:
                return error

        with ThreadPoolExecutor(self.parallel) as pool:
            yield from pool.map(answer, conversations)

    def answers(self, questions: Sequence[tuple[Image.Image, str]]) -> Iterator[str | None]:
        """The answer to each question about an image, in order; None for a request that was refused.

        Raises:
            EndpointError: as `chat`, but for a single refused request.
        """
        urls: dict[int, str] = {}  # by image: many questions may be about it
        for image, _ in questions:
            if id(image) not in urls:
                urls[id(image)] = data_url(image)
        for answer in self.chat_each([[image_message(urls[id(image)], text)] for image, text in questions]):
            if isinstance(answer, EndpointError) and not isinstance(answer, Unanswered):
                raise answer
            yield None if isinstance(answer, EndpointError) else answer

    @cached_property
    def _client(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI

        # A proxy of the environment can't reach this machine. Redirects would take key and images to another host.
        http = DefaultHttpxClient(trust_env=not self._on_this_machine, follow_redirects=False)
        return OpenAI(
            base_url=self.url,
            api_key="unused",  # each request brings its own
            timeout=self.timeout,
            max_retries=ATTEMPTS - 1,
            http_client=http,
        )

    def _refusal(self, error: APIStatusError, key: str) -> EndpointError:
        """The error of a status, quoting the response unless it may quote the key."""
        status = error.status_code
        if status in (401, 403):
            reason = f"{status}, not allowed; check the key in the environment variable {self.key_variable}"
        else:
            text = " ".join(error.response.text.split())
            reason = f"{status} {(text.replace(key, '***') if key else text)[:_QUOTED]}"
        if status in _BUSY or status >= 500:
            return self._not_reached(reason)
        kind = Unanswered if status in _REFUSES_ONE_REQUEST else EndpointError
        return kind(f"{self.url} refused a request to model {self.model}: {reason}")

    def _not_reached(self, reason: str) -> EndpointError:
        return EndpointError(
            f"{self.url} did not answer for model {self.model} in at most {ATTEMPTS} attempts: {reason}; "
            "is it up, and is the URL right?"
        )

    def _not_compatible(self) -> EndpointError:
        return EndpointError(f"{self.url}: not the response of an OpenAI-compatible chat endpoint")

    def _text_of(self, response: Any) -> str:
        """The text of a response, which the client leaves unchecked."""
        try:
            text = response.choices[0].message.content
        except (AttributeError, IndexError, KeyError, TypeError):
            raise self._not_compatible() from None
        if not isinstance(text, str) or not text.strip():
            raise Unanswered(f"{self.url}: model {self.model} answered without text")
        return text


def data_url(image: Image.Image) -> str:
    """The image as a data URL: JPEG of quality 95 without chroma subsampling, a fraction of PNG's bytes."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=95, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def image_message(image: Image.Image | str, text: str) -> Message:
    """A user's message of an image and a text; many messages about one image may share its `data_url`."""
    url = image if isinstance(image, str) else data_url(image)
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
    }


def _or_omit(value: T | None) -> T | Omit:
    from openai import omit

    return omit if value is None else value


def _is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
