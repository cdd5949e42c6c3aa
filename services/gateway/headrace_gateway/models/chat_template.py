"""Pure: a model's chat template, and detection of messages that it would leave out.

A template is a program over the messages, written against transformers. Some read the content of a
message as a string, some as a list of parts; given the other form they print nothing and raise
nothing. So each template is tried when it is loaded, with a marker as the content, and each role is
given the form in which the template prints the marker.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jinja2
from jinja2 import meta

from headrace.errors import InvalidRequest, Unsupported
from headrace_gateway.base.quoting import quoted
from headrace_gateway.models.jinja import ENVIRONMENT
from headrace_gateway.request.generation_request import Conversation, Message

# Why: a template is a program over the caller's messages; these are what it can fail with.
_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

_MARK = "headracemark0"
"""Letters and a digit: what trims, changes quotes or strips tags leaves it alone."""


class _Form(Enum):
    """How a role's text is given to the template."""

    TEXT = "text"
    PARTS = "parts"
    LOST = "lost"
    """The template prints it in neither form."""
    REFUSED = "refused"
    """The template raises in both forms; the client gets its message."""


_GIVEN = (_Form.TEXT, _Form.PARTS)


class _Arguments(Enum):
    """How the arguments of an earlier call are given: most templates take objects, some texts."""

    OBJECT = "object"
    TEXT = "text"


class TemplateUnusable(Exception):
    """A chat template cannot be read; the text says where and why."""


@dataclass(frozen=True, slots=True)
class _Role:
    name: str
    """The role's name in the template."""
    form: _Form
    beside_tools: bool = False
    """The template prints its text where tools are offered, and not where there are none."""


class ChatTemplate:
    """Immutable once loaded; used from the event loop and from threads at once."""

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        """
        Raises:
            TemplateUnusable: it does not parse.
        """
        try:
            self._template = ENVIRONMENT.from_string(source)
            self._reads = meta.find_undeclared_variables(ENVIRONMENT.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise TemplateUnusable(f"line {error.lineno}: {error.message}") from error
        except _FAILURES as error:
            raise TemplateUnusable(str(error) or type(error).__name__) from error
        self._specials = dict(specials)
        self._arguments = _Arguments.OBJECT
        self._roles: dict[str, _Role] = {}
        for role in ("user", "assistant", "system"):
            self._roles[role] = self._tried(role)
        self._arguments = self._arguments_taken()
        for role in ("tool", "function", "developer"):
            self._roles[role] = self._tried(role)
        self._later_system = self._system_after_the_first()

    @property
    def takes_text(self) -> bool:
        """Return whether the template prints the text of users."""
        return self._roles["user"].form is not _Form.LOST

    def render(self, conversation: Conversation) -> str:
        """Return the conversation as one text that ends where the model's answer begins.

        Raises:
            InvalidRequest: the template refuses the messages.
            Unsupported: it would leave the text of one of them out.
        """
        if not self.takes_text:
            raise Unsupported(
                "the model's chat template leaves out the text of messages, given as a text and"
                " given as parts; it takes no messages",
                field=conversation.field,
            )
        if conversation.documents and "documents" not in self._reads:
            raise Unsupported(
                "the model's chat template reads no documents; put them into a message",
                field="documents",
            )
        messages = [
            self._given(message, conversation, i) for i, message in enumerate(conversation.messages)
        ]
        try:
            text = self._rendered(messages, conversation)
        except _FAILURES as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {str(error)[:200]}",
                field=conversation.field,
            ) from error
        return _encodable(text)

    def _rendered(self, messages: Sequence[Message], conversation: Conversation) -> str:
        """Render the messages; if that fails, with the arguments of tool calls wrapped in objects.

        Why twice: a template that iterates over the arguments of a call fails on those that are no
        object, which a model may have written; that must not end its conversation.
        """
        given = _with_arguments(messages, self._arguments)
        try:
            return self._run(given, conversation)
        except _FAILURES:
            wrapped = _with_arguments(messages, self._arguments, wrap=True)
            if wrapped == given:
                raise
            return self._run(wrapped, conversation)

    def _run(self, messages: Sequence[Message], conversation: Conversation) -> str:
        if not conversation.continues:
            return self._template_says(messages, conversation, opens=conversation.opens_answer)
        *before, last = messages
        marked = {**last, "content": _marked(last.get("content", ""))}
        text = self._template_says([*before, marked], conversation, opens=False)
        head, mark, _ = text.rpartition(_MARK)
        if not mark:
            raise ValueError("it leaves out the message that is to be continued")
        return head

    def _template_says(
        self, messages: Sequence[Message], conversation: Conversation, *, opens: bool
    ) -> str:
        return self._template.render(
            {**self._specials, **(conversation.template_kwargs or {})},
            messages=[dict(message) for message in messages],
            tools=list(conversation.tools) or None,
            documents=list(conversation.documents) or None,
            add_generation_prompt=opens,
        )

    def _given(self, message: Message, conversation: Conversation, i: int) -> Message:
        role = self._roles.get(message["role"]) or self._tried(message["role"])
        later = role.name == "system" and i > 0
        form = self._later_system if later else role.form
        without = role.beside_tools and not conversation.tools
        if (form is _Form.LOST or without) and _text_of(message.get("content")):
            where = " that are not the first" if later else ""
            where = " where no tools are offered" if without else where
            raise Unsupported(
                f"the model's chat template leaves out messages of role"
                f" {quoted(message['role'])}{where}",
                field=f"{conversation.field}[{i}].role",
            )
        return {
            **message,
            "role": role.name,
            "content": _content(message.get("content"), form),
        }

    def _tried(self, role: str) -> _Role:
        before, after = self._around(role)
        found = self._form(role, before, after)
        # Why: one is OpenAI's newer name of the same, the other its older; most templates know
        # neither.
        if found.form not in _GIVEN and (same := _SAME_AS.get(role)) is not None:
            return self._roles[same]
        return found

    def _system_after_the_first(self) -> _Form:
        before = [self._plain("user"), self._plain("assistant")]
        form = self._form("system", before, [self._plain("user")]).form
        return self._roles["system"].form if form is _Form.REFUSED else form

    def _form(self, role: str, before: Sequence[Message], after: Sequence[Message]) -> _Role:
        lost = False
        for form in _GIVEN:
            message = {"role": role, "content": _content(_MARK, form), **_EXTRAS.get(role, {})}
            beside_tools = False
            for text in self._attempts([*before, message, *after]):
                # Why the quotes: a list that is printed as it is has the mark, and is no text.
                if _MARK in text and f"'text': '{_MARK}'" not in text:
                    return _Role(role, form, beside_tools)
                lost = beside_tools = True
        return _Role(role, _Form.LOST if lost else _Form.REFUSED)

    def _arguments_taken(self) -> _Arguments:
        for form in _Arguments:
            call = _with_arguments([self._plain("user"), self._calling()], form)
            for text in self._attempts(call):
                # Why: an object that is printed as it is is Python's, and no JSON.
                if _MARK in text and f"'at': '{_MARK}'" not in text:
                    return form
        return _Arguments.OBJECT

    def _attempts(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield what the template prints without tools and with one, unless it raises.

        Why both: some templates print tool results only beside tools, and some raise there.
        """
        for tools in ((), (_TOOL,)):
            with contextlib.suppress(*_FAILURES):
                yield self._template_says(messages, Conversation((), tools=tools), opens=True)

    def _around(self, role: str) -> tuple[list[Message], list[Message]]:
        """Return the turns before and after, for templates that require an order of roles."""
        match role:
            case "user":
                return [], []
            case "system" | "developer":
                return [], [self._plain("user")]
            case "assistant":
                return [self._plain("user")], [self._plain("user")]
            case "tool":
                called = _with_arguments([self._calling()], self._arguments)
                return [self._plain("user"), *called], []
        return [self._plain("user")], []

    def _plain(self, role: str) -> Message:
        known = self._roles.get(role)
        form = known.form if known else _Form.TEXT
        return {"role": role, "content": _content("Hello", form)}

    def _calling(self) -> Message:
        return {**self._plain("assistant"), "content": "", "tool_calls": [_CALL]}


_CALL_ID = "abcdefghi"
"""Mistral's templates take ids of nine letters and digits alone."""
_CALL = {
    "id": _CALL_ID,
    "type": "function",
    "function": {"name": "look", "arguments": {"at": _MARK}},
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
_SAME_AS = {"developer": "system", "function": "tool"}
_EXTRAS: Mapping[str, Mapping[str, Any]] = {
    "tool": {"tool_call_id": _CALL_ID, "name": "look"},
    "function": {"name": "look"},
}


def _content(content: object, form: _Form) -> object:
    """Return parts as the lines of one text, or a text as a part."""
    if form is not _Form.PARTS:
        return _text_of(content)
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content if isinstance(content, str) else ""


def _marked(content: object) -> object:
    """Return the content with the mark at its end."""
    if not isinstance(content, list):
        return f"{content}{_MARK}"
    *before, last = content or [{"type": "text", "text": ""}]
    return [*before, {**last, "text": last["text"] + _MARK}]


def _with_arguments(
    messages: Iterable[Message], form: _Arguments, *, wrap: bool = False
) -> list[Message]:
    return [
        {**message, "tool_calls": [_call(call, form, wrap) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _call(call: Mapping[str, Any], form: _Arguments, wrap: bool) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if form is _Arguments.TEXT and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif form is _Arguments.OBJECT and wrap and not isinstance(arguments, dict):
        arguments = {"arguments": arguments}
    return {**call, "function": {**function, "arguments": arguments}}


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON within JSON may have and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
