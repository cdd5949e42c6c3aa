"""Chat templates: whatever form they read, the text of a message is printed or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import headrace_worker
from headrace.errors import InvalidRequest, Unsupported
from headrace_gateway.models.chat_template import ChatTemplate, TemplateUnusable
from headrace_gateway.request.generation_request import Conversation
from headrace_gateway.request.tools import as_object

PARTS = """\
{%- for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}|{% endfor %}
{%- endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
EITHER = """\
{%- for m in messages %}<{{ m.role }}>
{%- if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}|
{%- endfor %}{% endif %}{% endfor %}"""
MIXED = """\
{%- for m in messages %}
{%- if m.role == "system" %}<system>{{ m.content + "." }}
{%- elif m.role == "user" %}<user>{% for p in m.content %}{{ p.text }}|{% endfor %}
{%- elif m.role == "assistant" %}<assistant>{{ m.content | trim }}
{%- endif %}
{%- endfor %}"""
FIRST_SYSTEM = """\
{%- if messages[0].role == "system" %}[{{ messages[0].content }}]{% endif %}
{%- for m in messages %}{% if m.role != "system" %}<{{ m.role }}>{{ m.content }}{% endif %}
{%- endfor %}"""
NOTHING = "{% for m in messages %}<{{ m.role }}>{{ m.text }}{% endfor %}"
PRINTS_LISTS = (
    "{% for m in messages %}{% if m.content is string %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
CALLS = """\
{%- for m in messages %}<{{ m.role }}>{{ m.content }}
{%- for c in m.tool_calls %}(%s){% endfor %}
{%- endfor %}"""
ITEMS = CALLS.replace(
    "%s", "{% for k, v in c.function.arguments | items %}{{ k }}={{ v }};{% endfor %}"
)
TO_JSON = CALLS.replace("%s", "{{ c.function.arguments | tojson }}")
JOINED = CALLS.replace("%s", "{{ c.function.name + ': ' + c.function.arguments }}")
PRINTED = CALLS.replace("%s", "{{ c.function.arguments }}")


def said(*turns: tuple[str, Any]) -> Conversation:
    return Conversation([{"role": role, "content": content} for role, content in turns])


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def rendered(template: str, *turns: tuple[str, Any]) -> str:
    return ChatTemplate(template, {}).render(said(*turns))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (PARTS, "<system>Be brief|<user>one|two|<assistant>Hi|<user>Bye|<assistant>"),
        (EITHER, "<system>Be brief<user>one\ntwo<assistant>Hi<user>Bye"),
        (MIXED, "<system>Be brief.<user>one|two|<assistant>Hi<user>Bye|"),
        (FIRST_SYSTEM, "[Be brief]<user>one\ntwo<assistant>Hi<user>Bye"),
        (PLAIN, "<system>Be brief<user>one\ntwo<assistant>Hi<user>Bye"),
    ],
)
def test_messages_have_the_form_that_the_template_reads(template: str, text: str) -> None:
    talk = [("system", "Be brief"), ("user", parts("one", "two")), ("assistant", "Hi")]
    assert rendered(template, *talk, ("user", "Bye")) == text


@pytest.mark.parametrize("template", [NOTHING, PRINTS_LISTS, "nothing at all"])
def test_a_template_that_prints_no_users_text_takes_no_messages(template: str) -> None:
    assert not ChatTemplate(template, {}).takes_text
    with pytest.raises(Unsupported, match="leaves out the text of messages") as refused:
        rendered(template, ("user", "Hello"))
    assert refused.value.field == "messages"


@pytest.mark.parametrize("role", ["tool", "function", "narrator"])
def test_a_role_that_the_template_passes_over_is_refused_by_its_place(role: str) -> None:
    with pytest.raises(Unsupported, match=f"leaves out messages of role '{role}'") as refused:
        rendered(MIXED, ("user", "Hello"), (role, "It rains"))
    assert refused.value.field == "messages[1].role"
    assert rendered(MIXED, ("user", "Hello"), (role, "")) == "<user>Hello|"


def test_a_system_message_that_is_read_at_the_beginning_alone_is_refused_elsewhere() -> None:
    turns = [("user", "Hello"), ("assistant", "Hi"), ("system", "Be brief"), ("user", "Bye")]
    with pytest.raises(Unsupported, match="'system' that are not the first") as refused:
        rendered(FIRST_SYSTEM, *turns)
    assert refused.value.field == "messages[2].role"
    assert "<system>Be brief" in rendered(PLAIN, *turns)


def test_developers_are_the_system_where_the_template_does_not_know_them() -> None:
    assert rendered(MIXED, ("developer", "Be brief"), ("user", "Hi")) == (
        "<system>Be brief.<user>Hi|"
    )
    assert rendered(PLAIN, ("developer", "Be brief"), ("user", "Hi")) == (
        "<developer>Be brief<user>Hi"
    )
    refuses = MIXED.replace("{%- endif %}\n", "{%- else %}{{ raise_exception('no') }}{% endif %}")
    assert rendered(refuses, ("developer", "Be brief"), ("user", "Hi")).startswith("<system>")


def test_results_of_functions_are_those_of_tools_where_the_template_knows_only_these() -> None:
    knows_tools = MIXED.replace(
        "{%- endif %}\n", "{%- elif m.role == 'tool' %}<tool>{{ m.content }}{% endif %}\n"
    )
    talk = [("user", "Sky?"), ("assistant", "look"), ("function", "blue")]
    assert rendered(knows_tools, *talk) == "<user>Sky?|<assistant>look<tool>blue"


def test_results_are_not_lost_where_they_are_read_beside_tools_alone() -> None:
    only_with_tools = (
        "{% for m in messages %}{% if m.role != 'tool' or tools %}<{{ m.role }}>{{ m.content }}"
        "{% endif %}{% endfor %}"
    )
    result = {"role": "tool", "content": "blue", "tool_call_id": "c1"}
    talk = Conversation([{"role": "user", "content": "Sky?"}, result], tools=[{"type": "function"}])
    assert ChatTemplate(only_with_tools, {}).render(talk) == "<user>Sky?<tool>blue"
    without = Conversation([{"role": "user", "content": "Sky?"}, result])
    with pytest.raises(Unsupported, match="role 'tool' where no tools are offered"):
        ChatTemplate(only_with_tools, {}).render(without)
    refuses_tools = "{{ raise_exception('none here') if tools }}" + PLAIN
    assert rendered(refuses_tools, ("user", "Sky?")) == "<user>Sky?"


def test_the_error_that_a_template_raises_is_reported_for_its_own_request() -> None:
    template = "{{ raise_exception('No system here') if messages[0].role == 'system' }}" + PLAIN
    with pytest.raises(InvalidRequest, match="No system here"):
        rendered(template, ("system", "Be brief"), ("user", "Hi"))
    assert rendered(template, ("user", "Hi")) == "<user>Hi"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{% if %}", "line 1: Expected an expression"),
        ("a\n\n{% for m in messages %}", "line 3: Unexpected end of template"),
        ("{{ a | no_such_filter }}", "line 1: No filter named 'no_such_filter'"),
        ("{{ " + "(" * 5000, "recursion"),
    ],
)
def test_the_error_for_a_template_that_does_not_parse_has_the_line(source: str, fault: str) -> None:
    with pytest.raises(TemplateUnusable, match=fault):
        ChatTemplate(source, {})


def calling(arguments: Any) -> Conversation:
    call = {"id": "c1", "type": "function", "function": {"name": "sky", "arguments": arguments}}
    return Conversation(
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "blue", "tool_call_id": "c1"},
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "by_items", "by_json", "by_joining"),
    [
        ('{"town": "Ulm"}', "town=Ulm;", '{"town": "Ulm"}', '{"town": "Ulm"}'),
        ("", "", "{}", "{}"),
        ("  ", "", "{}", "{}"),
        ("null", "", "{}", "{}"),
        (None, "", "{}", "{}"),
        ({"town": "Ulm"}, "town=Ulm;", '{"town": "Ulm"}', '{"town": "Ulm"}'),
        ('{"town": "U', 'arguments={"town": "U;', '"{\\"town\\": \\"U"', '{"town": "U'),
        ("Ulm", "arguments=Ulm;", '"Ulm"', "Ulm"),
        ("[1]", "arguments=[1];", "[1]", "[1]"),
        ("3", "arguments=3;", "3", "3"),
    ],
)
def test_whatever_a_model_wrote_as_arguments_the_conversation_goes_on(
    arguments: Any, by_items: str, by_json: str, by_joining: str
) -> None:
    talk = calling(as_object(arguments))
    for template, text in (
        (ITEMS, f"({by_items})"),
        (TO_JSON, f"({by_json})"),
        (JOINED, f"(sky: {by_joining})"),
        (PRINTED, f"({by_joining})"),
    ):
        expected = f"<user>Hello<assistant>{text}<tool>blue"
        assert ChatTemplate(template, {}).render(talk) == expected


def test_half_a_surrogate_pair_within_arguments_is_no_failure() -> None:
    text = ChatTemplate(TO_JSON, {}).render(calling(as_object('{"a": "\\ud83d"}')))
    assert text.encode()


@pytest.mark.parametrize("template", [PLAIN, PARTS, EITHER, MIXED])
def test_a_conversation_ends_within_its_last_message_where_that_is_continued(template: str) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "The sky is"}]
    continued = Conversation(turns, opens_answer=False, continues=True)
    assert ChatTemplate(template, {}).render(continued).endswith("The sky is")


def test_documents_are_read_by_the_template_or_refused() -> None:
    talk = Conversation([{"role": "user", "content": "Hello"}], documents=[{"text": "It rains."}])
    reads = "{% for d in documents %}[{{ d.text }}]{% endfor %}" + PLAIN
    assert ChatTemplate(reads, {}).render(talk) == "[It rains.]<user>Hello"
    with pytest.raises(Unsupported, match="reads no documents") as refused:
        ChatTemplate(PLAIN, {}).render(talk)
    assert refused.value.field == "documents"
    assert talk.characters == len("roleusercontentHello") + len("textIt rains.")


def test_the_prompt_opens_no_answer_where_that_is_turned_off() -> None:
    template = ChatTemplate(PARTS, {})
    turns = [{"role": "user", "content": "Hello"}]
    assert template.render(Conversation(turns, opens_answer=False)) == "<user>Hello|"


def test_the_default_models_template_leaves_out_no_role() -> None:
    folder = Path(headrace_worker.__file__).parent / "default_model"
    specials = {"bos_token": "<s>", "eos_token": "</s>"}
    template = ChatTemplate((folder / "chat_template.jinja").read_text(), specials)
    talk = [("system", "s1"), ("user", "u1"), ("assistant", "a1"), ("user", "u2")]
    text = template.render(said(*talk))
    assert all(each in text for _, each in talk)
    developer = template.render(said(("developer", "d1"), ("user", "u1")))
    assert "d1" in developer
    called = template.render(calling({"town": "Ulm"}))
    assert "blue" in called
    assert json.dumps({"town": "Ulm"}) in called
