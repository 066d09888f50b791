"""Chat templates in the forms that the families use, with their white space and their ends of turns."""

from __future__ import annotations

_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<assistant>' if message['role'] == 'assistant' else '<user>' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
# A message's content is a text, or a list of images and texts.
_CONTENT = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
)


def _content(image: str) -> str:
    return _CONTENT.replace("IMAGE", image.replace("\n", "\\n"))


def markers(image: str) -> str:
    """One marker a turn, no white space; the template writes the first token and each answer's end."""
    return _TEMPLATE.replace("IMAGE", image)


def chatml(image: str, *, thinking: bool = False) -> str:
    """Qwen's form: a system prompt as a turn of its own, no first token, a line break after each turn's end.

    With `thinking` the generation prompt opens a thought, or closes an empty one where `enable_thinking` is false; a finished
    turn has an empty thought before its answer.
    """
    opening = "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    generation = "{{ '<|im_start|>assistant\\n' }}"
    if thinking:
        opening += "{% if message['role'] == 'assistant' %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        generation += (
            "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
            "{% else %}{{ '<think>\\n' }}{% endif %}"
        )
    return (
        f"{{% for message in messages %}}{opening}{_content(image)}{{{{ '<|im_end|>\\n' }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{generation}{{% endif %}}"
    )


def onevision(image: str) -> str:
    """LLaVA-OneVision's form: a space after the role of a finished turn, none in the generation prompt."""
    return (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
        "{% if message['content'] is string %}{{ '\\n' + message['content'] }}{% else %}"
        "{% for part in message['content'] if part['type'] == 'image' %}{{ '" + image + "' }}{% endfor %}"
        "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}"
        "{% endif %}{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


def vicuna(image: str) -> str:
    """LLaVA-1.5's form: roles are words, the tokenizer writes the first token, and no turn of an assistant has an end."""
    return (
        "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
        "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
        "{% for part in message['content'] if part['type'] == 'image' %}{{ '" + image + "\\n' }}{% endfor %}"
        "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


def gemma(image: str) -> str:
    """Gemma's form: the template writes the first token, an answer is stripped, its role is `model`, its end is two tokens."""
    return (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}"
        + _content(image).replace("{{ part['text'] }}", "{{ part['text'] | trim }}")
        + "{{ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    )


def instruction(image: str) -> str:
    """Mistral's form: users between [INST] and [/INST], an answer right behind them, its end the end token."""
    return (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' }}" + _content(image) + "{{ '[/SYSTEM_PROMPT]' }}"
        "{% elif message['role'] == 'user' %}{{ '[INST]' }}" + _content(image) + "{{ '[/INST]' }}"
        "{% else %}" + _content(image) + "{{ eos_token }}{% endif %}{% endfor %}"
    )


def glm(image: str) -> str:
    """GLM's form: no end of an answer but the next turn's marker."""
    return (
        "{{ '[gMASK]<sop>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}"
        + _content(image)
        + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )


def idefics2(image: str) -> str:
    """Idefics2's form: roles as words, an end of each utterance and a line break."""
    return (
        "{{ bos_token }}{% for message in messages %}{{ message['role'].capitalize() + ':' }}"
        "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ 'IMAGE' }}"
        "{% else %}{{ ' ' + part['text'] if loop.first else part['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<end_of_utterance>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ).replace("IMAGE", image)


def cohere(image: str, *, opens_response: bool) -> str:
    """Cohere's form: an answer is between response markers; where `opens_response` the prompt has the first of them."""
    start = "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>" + ("<|START_RESPONSE|>" if opens_response else "") + "' }}"
    return (
        "{{ bos_token }}{% for message in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}"
        "{% if message['role'] == 'assistant' %}{{ '<|CHATBOT_TOKEN|><|START_RESPONSE|>' }}"
        + _content(image)
        + "{{ '<|END_RESPONSE|>' }}{% else %}{{ '<|' + message['role'].upper() + '_TOKEN|>' }}"
        + _content(image)
        + "{% endif %}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}{% if add_generation_prompt %}"
        + start
        + "{% endif %}"
    )


def gemma4(image: str) -> str:
    """Gemma 4's form: as Gemma's with other markers."""
    return gemma(image).replace("<start_of_turn>", "<|turn>").replace("<end_of_turn>", "<turn|>")


def prefix(image: str) -> str:
    """PaliGemma's form: image and text; its processor writes the first token and a line break, and there are no roles."""
    return (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}"
        + _content(image)
        + "{{ eos_token }}{% else %}"
        + _content(image)
        + "{% endif %}{% endfor %}"
    )


def words(image: str, *, end: str) -> str:
    """DeepSeek-VL's form: roles as words, two line breaks after a user, the end behind an answer."""
    return (
        (
            "{% for message in messages %}{{ message['role'].capitalize() + ': ' }}"
            "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}{{ 'IMAGE\\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
            "{{ 'END' if message['role'] == 'assistant' else '\\n\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
        )
        .replace("IMAGE", image)
        .replace("END", end)
    )


def header(image: str) -> str:
    """Llama's form: a role between header marks and two line breaks."""
    return (
        "{{ bos_token }}{% for message in messages %}{{ '<|header_start|>' + message['role'] + '<|header_end|>\\n\\n' }}"
        + _content(image)
        + "{{ '<|eot|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|header_start|>assistant<|header_end|>\\n\\n' }}{% endif %}"
    )


def exaone(image: str) -> str:
    """EXAONE's form: bracketed roles, an end after each turn but the last line break."""
    return (
        "{% for message in messages %}{{ '[|' + message['role'] + '|]\\n' }}"
        + _content(image)
        + "{{ '[|endofturn|]\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]\\n' }}{% endif %}"
    )


def ernie(image: str) -> str:
    """ERNIE's form: roles as words, an end token after an answer, a line break after a user."""
    return (
        "{{ bos_token }}{% for message in messages %}{{ message['role'].capitalize() + ': ' }}"
        + _content(image)
        + "{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
    )
