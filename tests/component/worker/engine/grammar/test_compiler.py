"""Grammars compiled by threads: what waits, what is refused, what is cached."""

from __future__ import annotations

import threading

from headrace_worker.engine.base.interface import Grammar, GrammarKind
from headrace_worker.engine.grammar.compiler import (
    AT_ONCE,
    COMPILE_S,
    REMEMBERED,
    Compilation,
    Compiled,
    Compiler,
    GrammarRefused,
)


def grammar(source: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, source)


class SlowLibrary:
    """Compiles to nothing; what begins with "slow" waits until it is released."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.released = threading.Event()
        self.made: list[str] = []
        self.compiler = Compiler(self._compile, lambda: self.now_s)

    def _compile(self, grammar: Grammar) -> Compiled:
        if grammar.source.startswith("slow"):
            assert self.released.wait(20)
        if grammar.source == "bad":
            raise GrammarRefused("it is bad")
        if grammar.source == "broken":
            raise ZeroDivisionError("ours")
        self.made.append(grammar.source)
        return lambda: self  # type: ignore[return-value]  # nothing is matched here

    def is_done(self, *sources: str) -> list[Compilation]:
        requested = [self.compiler.request(grammar(source)) for source in sources]
        while not all(compilation.is_done for compilation in requested):
            self.compiler.poll(5.0)
        return requested


def test_equal_grammars_are_compiled_once() -> None:
    library = SlowLibrary()
    first, second = library.is_done("a", "a")
    (third,) = library.is_done("a")
    assert first is second is third
    assert first.compiled is not None
    assert library.made == ["a"]


def test_a_refusal_has_its_reason_and_is_cached_too() -> None:
    library = SlowLibrary()
    bad, broken = library.is_done("bad", "broken")
    assert (bad.compiled, bad.refusal) == (None, "it is bad")
    assert broken.refusal == "ZeroDivisionError: ours"
    assert library.is_done("bad") == [bad]


def test_a_grammar_that_takes_too_long_is_refused_and_the_next_are_compiled() -> None:
    library = SlowLibrary()
    slow = [library.compiler.request(grammar(f"slow {i}")) for i in range(AT_ONCE)]
    quick = library.compiler.request(grammar("quick"))
    library.compiler.poll()
    assert not quick.is_done
    assert quick.began_s is None
    library.now_s = COMPILE_S + 0.1
    library.compiler.poll()
    assert [each.refusal for each in slow] == ["it takes more than 10 s to compile"] * AT_ONCE
    library.is_done("quick")
    assert library.made == ["quick"]
    library.released.set()
    while any(each.compiled is None for each in slow):
        library.compiler.poll(5.0)
    # It came too late for the sequences that waited; a new request gets it.
    assert library.is_done("slow 0") == [slow[0]]


def test_only_the_most_recently_requested_are_cached() -> None:
    library = SlowLibrary()
    library.is_done("first", "second")
    for i in range(REMEMBERED - 2):
        library.is_done(f"x{i}")
    library.is_done("first")
    library.is_done("one more")
    library.is_done("first")
    assert library.made.count("first") == 1
    library.is_done("second")
    assert library.made.count("second") == 2
