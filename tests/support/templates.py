"""Chat templates in the manner of ten families: how each writes turns, and no more of the original than that."""

from typing import Any, NamedTuple

Turns = list[dict[str, Any]]


def chat(*contents: str, system: str = "Be brief.") -> Turns:
    """A chat of a user and an assistant in turns, after a system prompt."""
    roles = ("user", "assistant")
    spoken = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *spoken] if system else spoken


class Family(NamedTuple):
    """A template, and what it lets the assistant say in each turn of `CHAT` when the turn is the last."""

    template: str
    answers: list[str]
    texts: (
        int  # that it takes to learn them: 1 if the template writes earlier turns as it wrote them when they were last
    )


THOUGHT = "<think>\nI count.\n</think>\n\n"
CHAT = chat("one?", f"{THOUGHT}It is 1.", "two?", " It is 2.\n", "three?", "It is 3.")

_LAST_USER = (
    "{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
)
_SPLIT_THOUGHT = (
    "{%- set said = m.content -%}{%- set thought = '' -%}{%- if '</think>' in said -%}"
    "{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}"
    "{%- set said = said.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}"
)
_CHATML = "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}"
_OF_LAST = "{%- if m.role == 'assistant' -%}" + _SPLIT_THOUGHT

QWEN3 = (
    _LAST_USER
    + "{%- for m in messages -%}"
    + _OF_LAST
    + "{{- '<|im_start|>assistant\\n' -}}{%- if loop.index0 > ns.last and (loop.last or thought) -%}"
    "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}{{- said + '<|im_end|>\\n' -}}{%- else -%}"
    + _CHATML
    + "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
QWEN3_5 = (
    _LAST_USER + "{%- if ns.last < 0 -%}{{- raise_exception('No user query found in messages.') -}}{%- endif -%}"
    "{%- for m in messages -%}" + _OF_LAST + "{{- '<|im_start|>assistant\\n' -}}{%- if loop.index0 > ns.last -%}"
    "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}{{- said | trim + '<|im_end|>\\n' -}}{%- else -%}"
    + _CHATML
    + "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
)
# Thoughts are a field of their own, and those before tool calls go once the question is answered.
GPT_OSS = (
    "{{- '<|start|>system<|message|>You are a model.\\nCurrent date: 2025-08-05<|end|>' -}}{%- for m in messages -%}"
    "{%- if m.role == 'assistant' -%}"
    "{%- set later = namespace(said=false) -%}{%- for n in messages[loop.index:] -%}"
    "{%- if n.role == 'assistant' and not n.tool_calls -%}{%- set later.said = true -%}{%- endif -%}{%- endfor -%}"
    "{%- if m.thinking and not later.said and (m.tool_calls or loop.last) -%}"
    "{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' -}}{%- endif -%}"
    "{%- if m.tool_calls -%}"
    "{{- '<|start|>assistant to=functions.' + m.tool_calls[0].function.name + '<|channel|>commentary json<|message|>'"
    " + m.tool_calls[0].function.arguments | tojson + '<|call|>' -}}"
    "{%- else -%}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content -}}"
    "{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' -}}{%- endif -%}"
    "{%- elif m.role == 'tool' -%}{{- '<|start|>functions.f to=assistant<|channel|>commentary<|message|>' + m.content +"
    " '<|end|>' -}}"
    "{%- else -%}{{- '<|start|>' + {'system': 'developer', 'user': 'user'}[m.role] + '<|message|>' + m.content + "
    "'<|end|>' -}}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}"
)
PHI_3 = (
    "{%- for m in messages -%}{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- else -%}{{- eos_token -}}{%- endif -%}"
)
DEEPSEEK_V3 = (
    "{{- bos_token -}}{%- for m in messages if m.role == 'system' -%}{{- m.content -}}{%- endfor -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{{- '<｜User｜>' + m.content -}}"
    "{%- elif m.role == 'assistant' -%}{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + eos_token -}}"
    "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}"
)
NEMOTRON = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{%- set said = m.content -%}"
    "{%- if not loop.last and '</think>' in said -%}{%- set said = said.split('</think>')[-1] -%}{%- endif -%}"
    "{{- '<SPECIAL_11>Assistant\\n' + said.strip() + '\\n<SPECIAL_12>\\n' -}}{%- else -%}"
    "{{- {'system': '<SPECIAL_10>System', 'user': '<SPECIAL_11>User'}[m.role] + '\\n' + m.content + '\\n' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<SPECIAL_11>Assistant\\n<think>\\n' -}}{%- endif -%}"
)
GLM = (
    _LAST_USER
    + "{{- '[gMASK]<sop>' -}}{%- for m in messages -%}"
    + _OF_LAST
    + "{{- '<|assistant|>\\n<think>' + (thought if loop.index0 > ns.last else '') + '</think>\\n' + said.strip() -}}"
    "{%- else -%}{{- '<|' + m.role + '|>\\n' + m.content -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
LLAMA_3 = (
    "{{- bos_token -}}{%- set head = 'Today Date: 26 Jul 2024\\n\\n' -%}{%- for m in messages -%}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + (head if m.role == 'system' else '') + "
    "m.content | trim + '<|eot_id|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)
GEMMA_3 = (
    "{{- bos_token -}}{%- set first = '' -%}{%- set turns = messages -%}{%- if messages[0].role == 'system' -%}"
    "{%- set first = messages[0].content + '\\n\\n' -%}{%- set turns = messages[1:] -%}{%- endif -%}"
    "{%- for m in turns -%}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}{%- endif -%}"
    "{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (first if loop.first else '') -}}"
    "{%- if m.content is string -%}{{- m.content | trim -}}{%- else -%}{%- for part in m.content -%}"
    "{{- part.text | trim -}}{%- endfor -%}{%- endif -%}{{- '<end_of_turn>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"
)
SMOLLM = (
    "{%- for m in messages -%}{%- if loop.first and m.role != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are SmolLM.<|im_end|>\\n' -}}{%- endif -%}"
    + _CHATML
    + "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
# The system prompt stands in the last question as long as it has no answer.
MISTRAL = (
    "{{- bos_token -}}{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content -%}"
    "{%- set turns = messages[1:] -%}{%- else -%}{%- set turns = messages -%}{%- endif -%}{%- for m in turns -%}"
    "{%- if m.role == 'user' -%}"
    "{{- '[INST] ' + (system + '\\n\\n' if loop.last and system else '') + m.content + '[/INST]' -}}{%- else -%}"
    "{{- ' ' + m.content | trim + eos_token -}}{%- endif -%}{%- endfor -%}"
)
PARTS_ALONE = (
    "{%- for m in messages -%}{{- '[' + m.role + ']' -}}{%- for part in m.content -%}{%- if part.type == 'text' -%}"
    "{{- part.text -}}{%- endif -%}{%- endfor -%}{{- '[end]' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '[assistant]' -}}{%- endif -%}"
)

_EMPTY = "<think>\n\n</think>\n\n"
FAMILIES = {
    "qwen3": Family(
        QWEN3,
        [f"{THOUGHT}It is 1.<|im_end|>\n", f"{_EMPTY} It is 2.\n<|im_end|>\n", f"{_EMPTY}It is 3.<|im_end|>\n"],
        3,
    ),
    "qwen3.5": Family(
        QWEN3_5,
        [
            "I count.\n</think>\n\nIt is 1.<|im_end|>\n",
            "\n</think>\n\nIt is 2.<|im_end|>\n",
            "\n</think>\n\nIt is 3.<|im_end|>\n",
        ],
        3,
    ),
    "gpt-oss": Family(
        GPT_OSS,
        [
            f"<|channel|>final<|message|>{THOUGHT}It is 1.<|return|>",
            "<|channel|>final<|message|> It is 2.\n<|return|>",
            "<|channel|>final<|message|>It is 3.<|return|>",
        ],
        3,
    ),
    "phi-3": Family(
        PHI_3,
        [f"{THOUGHT}It is 1.<|end|>\n</s>", " It is 2.\n<|end|>\n</s>", "It is 3.<|end|>\n</s>"],
        3,
    ),
    "deepseek-v3": Family(DEEPSEEK_V3, ["\n\nIt is 1.</s>", " It is 2.\n</s>", "It is 3.</s>"], 1),
    "nemotron": Family(
        NEMOTRON,
        [
            "I count.\n</think>\n\nIt is 1.\n<SPECIAL_12>\n",
            "It is 2.\n<SPECIAL_12>\n",
            "It is 3.\n<SPECIAL_12>\n",
        ],
        3,
    ),
    "glm": Family(
        GLM,
        [
            "\n<think>I count.</think>\nIt is 1.",
            "\n<think></think>\nIt is 2.",
            "\n<think></think>\nIt is 3.",
        ],
        3,
    ),
    "llama-3": Family(LLAMA_3, [f"{THOUGHT}It is 1.<|eot_id|>", "It is 2.<|eot_id|>", "It is 3.<|eot_id|>"], 1),
    "gemma-3": Family(
        GEMMA_3, [f"{THOUGHT}It is 1.<end_of_turn>\n", "It is 2.<end_of_turn>\n", "It is 3.<end_of_turn>\n"], 1
    ),
    "smollm": Family(SMOLLM, [f"{THOUGHT}It is 1.<|im_end|>\n", " It is 2.\n<|im_end|>\n", "It is 3.<|im_end|>\n"], 1),
}
