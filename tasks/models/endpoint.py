"""A small client of OpenAI-compatible chat endpoints, for what asks a model elsewhere: the judge and the teacher.

The key is read from the environment when a request is sent. It is in no artifact, no log and no error of ours.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx
    from PIL import Image

Message = dict[str, Any]

ATTEMPTS = 6
_LONGEST_PAUSE = 60.0  # seconds; also where the endpoint asks for more
_SHOWN = 300  # characters of an endpoint's own words in an error


class EndpointError(RuntimeError):
    """The endpoint could not be asked, or gave no answer; the message names the endpoint and what to check."""


class Unanswered(EndpointError):
    """This one request was refused, or answered without text; others may fare better."""


class Endpoint:
    """A model behind `URL/chat/completions`. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        parallel: int = 8,
        *,
        pause: float = 1.0,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: where the API begins, for example http://localhost:8000/v1.
            model: the name that the endpoint knows it by.
            key_variable: environment variable that holds the key; where it isn't set, none is sent.
            timeout: seconds that one request may take.
            parallel: requests under way at once in `chat_each`.
            pause: seconds before a request is sent again; doubled each time.

        Raises:
            EndpointError: the URL is none, or holds a name, a password or a query: it would be kept with the results.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EndpointError(f"endpoint url: want http(s)://HOST[:PORT]/v1, got one of scheme {parts.scheme!r}")
        if parts.username or parts.password or parts.query:
            raise EndpointError(
                f"endpoint url at {parts.hostname}: no name, password or query in it, for it is kept with the results; "
                f"put the key into the environment variable {key_variable}"
            )
        self.url, self.model, self.key_variable = url.rstrip("/"), model, key_variable
        self.timeout, self.parallel, self.pause = timeout, max(1, parallel), pause
        self._client: httpx.Client | None = None

    def chat(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
        seed: int | None = None,
    ) -> str:
        """The answer to a conversation; what is None is not sent. Busy (408, 429, 5xx) or out of reach: asked again.

        Raises:
            Unanswered: it refuses this request (400, 413, 422), or its answer holds no text.
            EndpointError: it refuses all of them, is still busy after `ATTEMPTS`, or is no such endpoint.
        """
        options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        body |= {name: value for name, value in options.items() if value is not None}
        return self._text_of(self._sent(body))

    def ask(self, *messages: Message) -> str:
        """`chat` with one conversation given as its messages."""
        return self.chat(messages)

    def chat_each(
        self, conversations: Sequence[Sequence[Message]], *, max_tokens: int | None = None
    ) -> Iterator[str | EndpointError]:
        """The answer to each of several conversations, in their order, `parallel` at once; its error where one failed."""

        def one(messages: Sequence[Message]) -> str | EndpointError:
            try:
                return self.chat(messages, max_tokens=max_tokens)
            except EndpointError as error:
                return error

        with ThreadPoolExecutor(self.parallel) as pool:
            yield from pool.map(one, conversations)

    def answers(self, questions: Sequence[tuple[Image.Image, str]]) -> Iterator[str | None]:
        """The answer to each question about an image, in order, many at once; None for a request that it refused.

        Raises:
            EndpointError: as `chat`, but for a single refused request.
        """
        urls: dict[int, str] = {}  # one an image, whatever is asked about it
        for image, _ in questions:
            if id(image) not in urls:
                urls[id(image)] = data_url(image)
        for answer in self.chat_each([[image_message(urls[id(image)], text)] for image, text in questions]):
            if isinstance(answer, EndpointError) and not isinstance(answer, Unanswered):
                raise answer
            yield None if isinstance(answer, EndpointError) else answer

    def _sent(self, body: dict[str, Any]) -> httpx.Response:
        """The response to a request; sent again while the endpoint is busy or out of reach."""
        import httpx

        if self._client is None:
            self._client = httpx.Client(timeout=self.timeout)
        key = os.environ.get(self.key_variable, "") if self.key_variable else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        wrong = ""
        for attempt in range(ATTEMPTS):
            asked_to_wait = 0.0
            try:
                response = self._client.post(f"{self.url}/chat/completions", json=body, headers=headers)
            except httpx.InvalidURL as error:
                raise EndpointError(f"{self.url}: not a URL ({error})") from None
            except httpx.HTTPError as error:
                wrong = f"{type(error).__name__}"
            else:
                if response.is_success:
                    return response
                wrong = self._refusal(response, key)
                if response.status_code not in (408, 429) and response.status_code < 500:
                    kind = Unanswered if response.status_code in (400, 413, 422) else EndpointError
                    raise kind(f"{self.url} refused a request to model {self.model}: {wrong}")
                asked_to_wait = _seconds(response.headers.get("retry-after", ""))
            if attempt + 1 < ATTEMPTS:
                time.sleep(min(_LONGEST_PAUSE, max(asked_to_wait, self.pause * 2**attempt)))
        raise EndpointError(
            f"{self.url} did not answer for model {self.model} in {ATTEMPTS} attempts: {wrong}; is it up, and is the URL right?"
        ) from None

    def _refusal(self, response: httpx.Response, key: str) -> str:
        """The status with the endpoint's own words, unless they may quote the key."""
        if response.status_code in (401, 403):
            return f"{response.status_code}, not allowed; check the key in the environment variable {self.key_variable}"
        words = " ".join(response.text.split())
        return f"{response.status_code} {(words.replace(key, '***') if key else words)[:_SHOWN]}"

    def _text_of(self, response: httpx.Response) -> str:
        try:
            text = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise EndpointError(f"{self.url}: its response is none of an OpenAI-compatible chat endpoint") from None
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


def _seconds(header: str) -> float:
    """Retry-After in seconds; a date or nothing is 0."""
    try:
        return max(0.0, float(header))
    except ValueError:
        return 0.0
