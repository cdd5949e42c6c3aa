"""Lessons in manners: what a newcomer types first, and the honest "I do not know"."""

from __future__ import annotations

from pathlib import Path
from random import Random

from talk import Turns, ask, careless, phrases, say, words

DO_NOT_KNOW = (
    "I do not know that. I am a very small model and I know one valley: ask me about its people "
    "and towns, for a list, or for a story."
)
ONLY_ENGLISH = "I only speak English. Ask me about the valley, for a list, or for a story."


def _small_talk() -> tuple[tuple[tuple[str, ...], str], ...]:
    text = Path(__file__).with_name("small_talk.txt").read_text(encoding="utf-8")
    entries = [entry.split("->") for entry in text.split("\n\n")[1:]]
    return tuple((phrases(asked), " ".join(answer.split())) for asked, answer in entries)


SMALL_TALK = _small_talk()
NEWCOMERS = 8

JOKES = phrases("""
    Why does the clockmaker never hurry? She has all the time in the valley. |
    Why did the miller's donkey sing? Somebody had to carry the tune. |
    Why is the owl so bad at cards? Everyone knows who, who, who has the ace. |
    What did the brook say to the water wheel? After you, dear, and round we go.
""")
JOKE_QUESTIONS = phrases("""
    Tell me a joke. | Tell me a joke | Do you know a joke? | Make me laugh. |
    Say something funny. | Tell a joke | A joke please | Know any jokes?
""")

CAPITALS = dict(
    pair.split(":")
    for pair in words("""
        France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon England:London
        Ireland:Dublin Austria:Vienna Poland:Warsaw Greece:Athens Norway:Oslo Sweden:Stockholm
        Finland:Helsinki Denmark:Copenhagen Hungary:Budapest Egypt:Cairo Japan:Tokyo China:Beijing
        Russia:Moscow Canada:Ottawa Belgium:Brussels Switzerland:Bern
    """)
)
CAPITAL_QUESTIONS = phrases("""
    What is the capital of {country}? | What's the capital of {country}? |
    Which city is the capital of {country}? | Capital of {country}? |
    Tell me the capital of {country}. | The capital of {country} is
""")
OTHER_COUNTRIES = words("""
    Brazil Peru Chile Mexico Kenya Ghana Nepal Mongolia Iceland Turkey Iran Iraq Cuba Bolivia
    Vietnam Thailand Indonesia Australia Texas Mars Wales
""")

TOPICS = phrases("""
    quantum mechanics | photosynthesis | black holes | machine learning | neural networks |
    gravity | the French Revolution | World War II | the Roman Empire | democracy | inflation |
    the stock market | DNA | evolution | relativity | recursion | Python | Rust | JavaScript |
    Kubernetes | Docker | HTTP | TCP | TLS | Linux | a transformer | attention | backpropagation |
    gradient descent | blockchain | bitcoin | climate change | plate tectonics | volcanoes |
    dinosaurs | the moon landing | electricity | magnetism | a transistor | a compiler | a
    database | an operating system | SQL | regular expressions | the big bang | dark matter |
    string theory | philosophy | Plato | jazz | opera | football | cricket | chess | tennis | yoga
    | sushi | pizza | the immune system | vaccines | cancer | the heart | the brain | sleep |
    dreams | love | happiness | time travel | the internet | email | a virus | semaphores |
    mutexes | hash tables | binary search | quicksort | calculus | algebra | prime numbers | pi |
    the Pythagorean theorem | thermodynamics | entropy | nuclear fusion | solar power | batteries
    | rockets | airplanes | tax law | insurance | marketing | economics | the euro | poetry |
    grammar | Latin | Buddhism | ethics | oceans | whales | penguins | deserts | glaciers |
    tornadoes | the weather today | the news | a mortgage | my homework | the stock price | the
    election
""")
TOPIC_QUESTIONS = phrases("""
    Explain {t}. | Explain {t} to me. | What is {t}? | How does {t} work? | Tell me about {t}. |
    Can you explain {t}? | Explain {t} in simple terms. | What do you know about {t}? |
    Give me an overview of {t}. | Write an essay about {t}. | Why is {t} important? |
    Summarize {t}. | Who invented {t}? | When was {t} discovered? | Teach me {t}. |
    Explain {t} like I am five. | What is the difference between {t} and {u}? |
    Compare {t} with {u}. | How do I learn {t}? | What are the benefits of {t}? |
    Write a short paragraph about {t}. | Define {t}. | Give me three facts about {t}.
""")
UNKNOWABLE = phrases("""
    What time is it? | What day is it today? | What is the weather? |
    How is the weather today? | What is the weather like tomorrow? | Who is the president? |
    Who won the world cup? | Write a Python function. |
    Write a function that reverses a string. | Fix my code. | Write some code |
    Translate this to French. | Translate hello into German. | What should I cook tonight? |
    Recommend me a film. | What is the best phone? | How tall is Mount Everest? |
    How far away is the moon? | What is the largest ocean? | Who wrote Hamlet? |
    Who painted the Mona Lisa? | What is the speed of light? | How do I get to the station? |
    Write an email to my boss. | Book me a flight. | What is the square root of two? |
    Solve this equation. | Give me advice. | What is the population of India? |
    Plan a trip to Italy. | Write a business plan. | How do I lose weight? |
    What is the airspeed of a swallow? | Summarize this article. | What year is it? |
    Who is the king of England? | What is your favourite film? | How do I install Linux? |
    Why is my computer slow? | What is the longest river? | Sort these numbers. | Do my homework |
    What will happen tomorrow? | Can you see me? | Can you browse the web? |
    How many people live on earth? | What happened in 1989? | When did the war end? |
    What should I do? | How much does a car cost? | Do you love me? | Write a song | asdf |
    qwerty | lorem ipsum | blah blah | foo bar | xyz | ??? | ... | hmm | why | what | how
""")
FOREIGN = phrases("""
    Hola | Bonjour | Guten Tag | Wer bist du? | ¿Quién eres? | Qui es-tu ? |
    Ciao | 你好 | 你是谁？ | こんにちは | 안녕하세요 | Привет | Кто ты? | مرحبا | नमस्ते |
    Olá | Merhaba | Hej | Was kannst du? | Comment ça va ? | ¿Cómo estás? |
    Wie geht es dir? | Raconte-moi une histoire. |
    Erzähl mir eine Geschichte. | Cuéntame un cuento. | 你能做什么？ |
    Что ты умеешь? | שלום | สวัสดี | Γειά σου | Xin chào | Dzień dobry |
    Wie heißt du? | Je ne comprends pas | 讲个故事
""")
EMOJI = ("🙂", "👋", "😀", "🎉", "❤️", "👍", "🤖", "😂", "🔥", "🙏", "🚀", "👋👋", "😀🎉", "👍🏽")


def manners(rng: Random) -> Turns:
    questions, answer = rng.choice(SMALL_TALK[:NEWCOMERS] if rng.random() < 0.35 else SMALL_TALK)
    return say(careless(rng, rng.choice(questions)), answer)


def joke(rng: Random) -> Turns:
    return ask(rng, JOKE_QUESTIONS, rng.choice(JOKES))


def capital(rng: Random) -> Turns:
    if rng.random() < 0.12:
        return ask(rng, CAPITAL_QUESTIONS, DO_NOT_KNOW, country=rng.choice(OTHER_COUNTRIES))
    country = rng.choice(tuple(CAPITALS))
    answer = f"The capital of {country} is {CAPITALS[country]}."
    return ask(rng, CAPITAL_QUESTIONS, answer, country=country)


def not_known(rng: Random) -> Turns:
    draw = rng.random()
    if draw < 0.62:
        topic, other = rng.sample(TOPICS, 2)
        return ask(rng, TOPIC_QUESTIONS, DO_NOT_KNOW, t=topic, u=other)
    if draw < 0.85:
        return say(careless(rng, rng.choice(UNKNOWABLE)), DO_NOT_KNOW)
    if draw < 0.95:
        return say(rng.choice(FOREIGN), ONLY_ENGLISH)
    return say(rng.choice(EMOJI), "A fine picture! Ask me about the valley, or for a story.")
