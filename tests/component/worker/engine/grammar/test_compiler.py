"""Grammars made ready by threads: who waits, who is refused, what is remembered."""

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


class Workshop:
    """Compiles to nothing; what begins with "slow" waits until it is let go."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.let_go = threading.Event()
        self.made: list[str] = []
        self.compiler = Compiler(self._compile, lambda: self.now_s)

    def _compile(self, grammar: Grammar) -> Compiled:
        if grammar.source.startswith("slow"):
            assert self.let_go.wait(20)
        if grammar.source == "bad":
            raise GrammarRefused("it is bad")
        if grammar.source == "broken":
            raise ZeroDivisionError("ours")
        self.made.append(grammar.source)
        return lambda: self  # type: ignore[return-value]  # nobody matches here

    def is_done(self, *sources: str) -> list[Compilation]:
        asked = [self.compiler.request(grammar(source)) for source in sources]
        while not all(compilation.is_done for compilation in asked):
            self.compiler.poll(5.0)
        return asked


def test_equal_grammars_are_compiled_once() -> None:
    shop = Workshop()
    first, second = shop.is_done("a", "a")
    (third,) = shop.is_done("a")
    assert first is second is third
    assert first.compiled is not None
    assert shop.made == ["a"]


def test_a_refusal_has_its_fact_and_is_remembered_too() -> None:
    shop = Workshop()
    bad, broken = shop.is_done("bad", "broken")
    assert (bad.compiled, bad.refusal) == (None, "it is bad")
    assert broken.refusal == "ZeroDivisionError: ours"
    assert shop.is_done("bad") == [bad]


def test_who_takes_too_long_is_refused_and_those_behind_go_on() -> None:
    shop = Workshop()
    slow = [shop.compiler.request(grammar(f"slow {i}")) for i in range(AT_ONCE)]
    quick = shop.compiler.request(grammar("quick"))
    shop.compiler.poll()
    assert not quick.is_done
    assert quick.began_s is None
    shop.now_s = COMPILE_S + 0.1
    shop.compiler.poll()
    assert [each.refusal for each in slow] == ["it takes more than 10 s to compile"] * AT_ONCE
    shop.is_done("quick")
    assert shop.made == ["quick"]
    shop.let_go.set()
    while any(each.compiled is None for each in slow):
        shop.compiler.poll(5.0)
    # It came too late for those who waited; who asks now has it.
    assert shop.is_done("slow 0") == [slow[0]]


def test_only_the_most_recently_requested_are_cached() -> None:
    shop = Workshop()
    shop.is_done("first", "second")
    for i in range(REMEMBERED - 2):
        shop.is_done(f"x{i}")
    shop.is_done("first")
    shop.is_done("one more")
    shop.is_done("first")
    assert shop.made.count("first") == 1
    shop.is_done("second")
    assert shop.made.count("second") == 2
