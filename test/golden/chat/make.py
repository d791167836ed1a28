"""Renders the templates of this folder with the reference engine, set up as Hugging Face's apply_chat_template does.

    pip install jinja2==3.1.6 && python make.py
"""
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent

USER = {"role": "user", "content": "What is the capital of France?"}
ANSWER = {"role": "assistant", "content": "Paris."}
SYSTEM = {"role": "system", "content": "  Be brief.\n"}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "a", "type": "function", "function": {"name": "find", "arguments": {"query": "Füße \"x\"", "n": [1, 2.5, None, True], "o": {}}}},
    {"id": "b", "type": "function", "function": {"name": "find", "arguments": "{\"query\":1}"}}]}
RESULTS = [{"role": "tool", "tool_call_id": "a", "content": "one"}, {"role": "tool", "tool_call_id": "b", "content": "two"}]
TOOLS = [{"type": "function", "function": {"name": "find", "description": "Finds – 'things' & <more>", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}}]
THOUGHT = {"role": "assistant", "content": "<think>\nhm, France\n</think>\n\nParis."}

CONVERSATIONS = [
    {"messages": [USER]},
    {"messages": [USER], "add_generation_prompt": False},
    {"messages": [SYSTEM, USER]},
    {"messages": [USER, ANSWER, {"role": "user", "content": " \tAnd of 日本? 😀\n"}]},
    {"messages": [SYSTEM, USER, ANSWER], "add_generation_prompt": False},
    {"messages": [USER, THOUGHT, USER]},
    {"messages": [USER, THOUGHT]},
    {"messages": [{"role": "user", "content": ""}]},
    {"messages": [USER, CALL, *RESULTS, ANSWER, USER], "tools": TOOLS},
    {"messages": [SYSTEM, USER], "tools": TOOLS},
    {"messages": [USER], "kwargs": {"enable_thinking": False}},
    {"messages": [USER, USER]},
    {"messages": [{"role": "robot", "content": "beep"}]},
]


class Raised(Exception):
    pass


def raise_exception(message):
    raise Raised(message)


def main():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    rendered = {}
    for path in sorted(HERE.glob("*.jinja")):
        template, rows = environment.from_string(path.read_text(encoding="utf8")), []
        for c in CONVERSATIONS:
            try:
                rows.append({"text": template.render(messages=c["messages"], tools=c.get("tools"), documents=None, add_generation_prompt=c.get("add_generation_prompt", True), bos_token="<s>", eos_token="</s>", **c.get("kwargs", {}))})
            except Raised as error:
                rows.append({"raised": str(error)})
            except TypeError:
                rows.append(None)  # the template cannot take content that is null: nothing to compare
        rendered[path.stem] = rows
    (HERE / "cases.json").write_text(json.dumps({"conversations": CONVERSATIONS, "rendered": rendered}, ensure_ascii=False, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
