"""Redaction: what a secret's name stands before is never shown, whoever wrote it, wherever it is cut."""

import ast
import json
import subprocess
import sys
import time
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import make_dataclass
from datetime import datetime, timezone
from decimal import Decimal
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_plugin.redact import MAX_CHARS, Redactor
from celery_plugin.redact_names import _STEMS, SECRET_WORDS, SecretNames, words_of

REDACTOR = Redactor()
# No part of it occurs by chance in anything that the tests make.
MARKER = "qZ7xK9vW3mJ5"
PARTS = tuple(MARKER[start : start + 4] for start in range(len(MARKER) - 3))

SHOWN = {
    # Reprs of Python
    "('user@example.com', {'password': '[redacted]', 'n': 1})": (
        "('user@example.com', {'password': 'hunter2', 'n': 1})"
    ),
    "{'api_key': '[redacted]', 'nested': [{'Authorization': '[redacted]'}]}": (
        "{'api_key': 'x', 'nested': [{'Authorization': 'Bearer abc'}]}"
    ),
    "{'password': '[redacted]', 'n': 5}": "{'password': {'a': [1, (2,)], 'b': {3}}, 'n': 5}",
    "{'password': '[redacted]', 'z': 1}": "{'password': b'\\x00\\'\"', 'z': 1}",
    "{'token': '[redacted]', 'z': 2}": "{'token': None, 'z': 2}",
    "{'pin': '[redacted]', 'd': Decimal('1'), 'u': UUID('ab')}": (
        "{'pin': 1234, 'd': Decimal('1'), 'u': UUID('ab')}"
    ),
    "User(name='x', password='[redacted]')": "User(name='x', password='y')",
    "User(name='x', password='[redacted]', n=3)": "User(name='x', password='y', n=3)",
    "f(password='[redacted]', n=3)": "f(password=(1, 'a'), n=3)",
    "SecretStr('[redacted]')": "SecretStr('abc')",
    "[app.ApiKey('[redacted]'), 5]": "[app.ApiKey('abc', owner='me'), 5]",
    "OrderedDict([('password', '[redacted]'), ('n', 1)])": "OrderedDict([('password', 'x'), ('n', 1)])",
    "[['token', '[redacted]'], ['n', 1]]": "[['token', 'x'], ['n', 1]]",
    "('password', '[redacted]')": "('password', 'hunter2', 'and', 'more')",
    "['curl', '--password', '[redacted]']": "['curl', '--password', 'x', '-v']",
    "['--password=[redacted]', 'y']": "['--password=x', 'y']",
    "{'name': 'password', 'value': '[redacted]', 'n': 1}": "{'name': 'password', 'value': 'x', 'n': 1}",
    "<User password=[redacted] name=bob>": "<User password=hunter2 name=bob>",
    "(<Token: [redacted]>, 5)": "(<Token: 9944b09199>, 5)",
    "{password: '[redacted]', n: 1}": "{password: hunter2, n: 1}",
    '{"password": "[redacted]", "n": [1]}': '{"password": "x", "n": [1]}',
    "{f'a': rb'b', u'password': '[redacted]'}": "{f'a': rb'b', u'password': u'c'}",
    "('''a'b''', {'pwd': '[redacted]'})": "('''a'b''', {'pwd': '''c'd'''})",
    "{'user[password]': '[redacted]', 'n': 1}": "{'user[password]': 'x', 'n': 1}",
    # Texts in strings
    "('postgres://user:[redacted]@host/db',)": "('postgres://user:pass@host/db',)",
    "('redis://:[redacted]@h:6379/0', 'redis://h:6379/0')": "('redis://:p@ss@h:6379/0', 'redis://h:6379/0')",
    "amqp://u:[redacted]@h//": "amqp://u:a/b#c@h//",
    "redis://u:[redacted]@h1,redis://u:[redacted]@h2;redis://u:[redacted]@h3": (
        "redis://u:p@h1,redis://u:p@h2;redis://u:p@h3"
    ),
    "https://[redacted]@github.com/x": "https://ghp_abc@github.com/x",
    "('https://x.com/?token=[redacted]&x=1',)": "('https://x.com/?token=abc&x=1',)",
    "grant=a&client_secret=[redacted]&x=1": "grant=a&client_secret=abc&x=1",
    "user[password]=[redacted]&n=1": "user[password]=x&n=1",
    "host=h password=[redacted] dbname=x": "host=h password=abc dbname=x",
    "Server=h;Password=[redacted];Database=x": "Server=h;Password=a b,c;Database=x",
    '(\'{"password": "[redacted]", "n": 1}\',)': '(\'{"password": "x", "n": 1}\',)',
    "('Host: a\\nAuthorization: [redacted]\\nAccept: b', 2)": (
        "('Host: a\\nAuthorization: Bearer abc\\nAccept: b', 2)"
    ),
    "Cookie: [redacted]\nHost: x": "Cookie: a=b; sid=d\nHost: x",
    "('-----BEGIN RSA PRIVATE KEY-----[redacted]', 5)": "('-----BEGIN RSA PRIVATE KEY-----\\nMII=\\n', 5)",
    "API key: [redacted]": "API key: abc",
    "C:\\temp\\token=[redacted]": "C:\\temp\\token=abc",
    "{'a': 'pass%[redacted]'}": "{'a': 'pass%77ord=x'}",
    "{'r': 'x?next=/y?token=[redacted]'}": "{'r': 'x%3Fnext%3D/y%3Ftoken%3Dabc'}",
    "{'pas\\x73word': '[redacted]'}": "{'pas\\x73word': 'x'}",
    # Sentences
    "Login failed for 'bob' with password '[redacted]'": "Login failed for 'bob' with password 'hunter2'",
    "Invalid token [redacted]": "Invalid token abc in line 5",
    "PIN [redacted]": "PIN 1234",
    "The secret is [redacted]": "The secret is hunter2",
    # Cut, or not readable: no more than is certain
    "{'a': 1, 'password': '[redacted]'…": "{'a': 1, 'password': 'hunt...",
    "{'a': 1, 'password': '[redacted]'}": "{'a': 1, 'password': 'hunt...', ...}",
    "('redis://user:[redacted]', ...)": "('redis://user:12...', ...)",
    "https://[redacted]": "https://ghp_abc…",
    "{'a': [redacted]": "{'a': b'it's', 'password': 'hunter2'}",
    "{'password': '[redacted]'": "{'password': b'hun'ter2', 'n': 1}",
    "{[redacted]": "{'password\\': 'hunter2'}",
    "(1, [redacted]": "(1, 'a password",
    "(<A password=[redacted]": "(<A password=(a]b>, 5)",
}

AS_IT_IS = [
    "()",
    "{}",
    "(1, -2.5, 1e9)",
    "user 5",
    "<big object>",
    "<object at 0x7f00ab>",
    "don't panic",
    "it's 5 o'clock, passengers",
    "('unbalanced, ",
    "{'a': 'hel...",
    "{'author': 'x', 'passenger': 'y', 'spin': 1, 'tokenize_count': 2, 'shipping': 'cart'}",
    "{'max_tokens': 5, 'prompt_tokens': 7, 'authority': 8, 'keyboard': 9, 'opinion': 1, 'discard': 2}",
    "{'key': 1, 'keys': [2], 'cache_key': 3, 'code': 4, 'description': 'a, b: c=d'}",
    "{'k': datetime.datetime(2020, 1, 1, tzinfo=<UTC>), 'pinned': frozenset({1, 2}), 'e': ...}",
    "http://localhost:8000/x?y=1#pin",
    "[http://[::1]:80/x, http://pinned:80]",
    "mongodb://spin1:27017,spin2:27017/x",
    "git@github.com:pinned/y",
    "Your password has expired",
    "ValueError('password is required')",
    "InvalidTokenError('Signature has expired')",
    "3 tests pass, 2 fail",
    "KeyError('password')",
    "['name', 'email', 'password']",
    "\ud800 \x00 pin",
]

NAMES = {
    True: [
        "password",
        "PASSWORD",
        "Password",
        "passWord",
        "user_password",
        "password1",
        "PGPASSWORD",
        "passwordHash",
        "passwd",
        "pwd",
        "pass",
        "passphrase",
        "secret",
        "client-secret",
        "clientSecret",
        "secrets",
        "token",
        "accessToken",
        "refresh_token",
        "csrftoken",
        "csrfmiddlewaretoken",
        "X-CSRF-Token",
        "HTTPToken",
        "api_key",
        "apikey",
        "apiKey",
        "APIKey",
        "x-api-key",
        "X_API_KEY",
        "access_key",
        "AWS_ACCESS_KEY_ID",
        "private_key",
        "Authorization",
        "proxy-authorization",
        "auth",
        "basicAuth",
        "Cookie",
        "Set-Cookie",
        "session",
        "sessionid",
        "PHPSESSID",
        "connect.sid",
        "credential",
        "credentials",
        "card",
        "card_number",
        "creditCard",
        "cc",
        "cvv",
        "CVC",
        "iban",
        "ssn",
        "pin",
        "otp",
        "totp",
        "signature",
        "bearer",
        "jwt",
        "csrf",
        "xsrf",
        "id_token",
        "userPASSword",
        "--password",
        "auth[token]",
        "pAsSwOrD",
        "2fa",
    ],
    False: [
        "author",
        "authority",
        "passenger",
        "passage",
        "compass",
        "spin",
        "opinion",
        "pinned",
        "tokenize_count",
        "tokenizer",
        "secretary",
        "keyboard",
        "key",
        "cache_key",
        "monkey",
        "discard",
        "cardinal",
        "account",
        "accept",
        "scc",
        "passing",
        "bypass",
        "sessions_count",
        "signal",
        "design",
        "cookiecutter",
        "max_tokens",
        "total_tokens",
        "token_count",
        "validation_error",
        "shipping",
        "user",
        "name",
        "url",
        "id",
        "email",
        "TokenError",
        "assignee",
        "side",
        "inside",
    ],
}


def leaks(text: str) -> bool:
    """Tell whether any four characters of the marker are in a text."""
    return any(part in text for part in PARTS)


@pytest.mark.parametrize(("expected", "text"), SHOWN.items())
def test_secrets_are_taken_out(expected: str, text: str) -> None:
    """Each form in which a secret comes with its name is found; the rest stays readable."""
    assert expected == REDACTOR.repr_text(text)


@pytest.mark.parametrize("text", [*AS_IT_IS, *SHOWN])
def test_all_else_stays(text: str) -> None:
    """What has no secret in it is shown as it is, and what was redacted stays the same."""
    assert text == REDACTOR.repr_text(text)


@pytest.mark.parametrize(
    ("secret", "name"), [(secret, name) for secret in NAMES for name in sorted(NAMES[secret])]
)
def test_names(secret: bool, name: str) -> None:
    """A name is judged by its words, not by what else they could contain."""
    assert secret == SecretNames().is_secret(name)


def test_quick_look_misses_no_name() -> None:
    """Whatever word is in the list, the quick look at a text finds it."""
    assert [] == [word for word in SECRET_WORDS if not SecretNames().is_secret(word)]
    assert [] == [stem for stem in _STEMS if not SecretNames().may_matter(f"x {stem.upper()} y")]


@pytest.mark.parametrize(
    ("secret", "extra", "name"),
    [
        (True, "internal_ref", "internalRef"),
        (True, "internal_ref", "old-internal-ref-2"),
        (True, "internalRef", "INTERNAL_REF"),
        (False, "internal_ref", "internal"),
        (False, "ref", "prefix"),
        (True, "cust_*", "custNo"),
        (True, "*_no", "customer-no"),
        (False, "cust_*", "my_cust_no"),
        (True, "*", "anything"),
        (True, " nino ", "nino"),
        (False, "", "anything"),
        (False, "(", "anything"),
    ],
)
def test_names_of_the_operator(secret: bool, extra: str, name: str) -> None:
    """The operator's names are found in each form, alone or among other words; ``*`` is any text."""
    assert secret == SecretNames([extra]).is_secret(name)
    assert secret == ("abc" not in Redactor([extra]).repr_text(f"{{'{name}': 'abc'}}"))


def test_names_made_up_by_clients_fill_no_memory() -> None:
    """However many names come, few are remembered."""
    names = SecretNames()
    for number in range(10_000):
        names.is_secret(f"password{number}")
    assert 4096 >= len(names._cache)


# Whatever Python makes.

WORDS = st.sampled_from(["a", "note", "author", "passenger", "x y", "count", "spin"])
# All that strings, structure and escapes are written with.
NASTY = st.text("ab1 ,:;=&'\"\\{}()[]<>n\n\t\x00é…\ud800.-", max_size=8)
ATOMS = st.one_of(
    st.integers(0, 99),
    st.none(),
    st.booleans(),
    WORDS,
    NASTY,
    st.binary(max_size=4),
    st.sampled_from([Decimal(1), UUID(int=5), datetime(2020, 1, 1, tzinfo=timezone.utc), ..., 1.5, set()]),
)
PLAIN = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(WORDS | NASTY, inner, max_size=3),
    ),
    max_leaves=6,
)
SECRET_KEYS = st.sampled_from(
    [name for name in sorted(NAMES[True]) if name.isidentifier() and name != "pass"]
)
MARKED = st.one_of(
    st.just(MARKER),
    st.builds("{}{}{}".format, NASTY, st.just(MARKER), NASTY),
    st.just(MARKER.encode()),
    st.lists(st.just(MARKER) | ATOMS, min_size=1, max_size=3),
    st.dictionaries(WORDS, st.just(MARKER), min_size=1, max_size=2),
    st.just({"a": [(MARKER,), MARKER]}),
)


def with_secret(key: str, marked: object, before: object, after: object) -> st.SearchStrategy[object]:
    """Make all that holds the marker under a secret's name."""
    record = make_dataclass("Record", ["author", key, "z"])
    return st.sampled_from(
        [
            {"author": before, key: marked, "z": after},
            {key: marked},
            (key, marked),
            [[key, marked], after],
            OrderedDict([(key, marked), ("z", after)]),
            record(before, marked, after) if not isinstance(marked, bytes) else {key: marked},
            {"name": key, "value": marked},
        ]
    )


HOLDERS = st.tuples(SECRET_KEYS, MARKED, PLAIN, PLAIN).flatmap(lambda parts: with_secret(*parts))
WRAPPERS: list[Callable[[object, object], object]] = [
    lambda inner, other: [other, inner],
    lambda inner, other: (inner, other),
    lambda inner, other: {"a": other, "b": inner},
    lambda inner, other: {"b": inner, "note": other},
    lambda inner, other: OrderedDict(b=inner, c=other),
]


@st.composite
def secret_structures(draw: st.DrawFn) -> object:
    """Put what holds the marker somewhere in a structure."""
    structure = draw(HOLDERS)
    for wrapper in draw(st.lists(st.sampled_from(WRAPPERS), max_size=4)):
        structure = wrapper(structure, draw(PLAIN))
    return structure


@settings(max_examples=500)
@given(secret_structures())
def test_no_repr_shows_a_secret(structure: object) -> None:
    """Whatever stands around it: no four characters of a secret are in a redacted repr."""
    assert not leaks(REDACTOR.repr_text(repr(structure), 10_000))


@settings(max_examples=500)
@given(secret_structures(), st.integers(1, 400))
def test_no_cut_repr_shows_a_secret(structure: object, size: int) -> None:
    """Wherever Celery's producer, somebody else or the limit cuts it, nothing of the secret is shown."""
    assert not leaks(REDACTOR.repr_text(saferepr(structure, maxlen=size), 10_000))
    assert not leaks(REDACTOR.repr_text(saferepr(structure, maxlevels=0), size))
    assert not leaks(REDACTOR.repr_text(repr(structure)[:size], 10_000))
    assert not leaks(REDACTOR.repr_text(repr(structure)[:size] + "..."))


@settings(max_examples=300)
@given(secret_structures(), st.integers(1, 4))
def test_no_repr_of_a_repr_shows_a_secret(structure: object, times: int) -> None:
    """A text of a structure in a string in a string is read as well."""
    text = repr(structure)
    for _ in range(times):
        text = repr((text, 1))
    assert not leaks(REDACTOR.repr_text(text, 100_000))


def has_only_json(structure: object) -> object:
    """Make of a structure what JSON has."""
    return json.loads(json.dumps(structure, default=str, skipkeys=True))


@settings(max_examples=300)
@given(SECRET_KEYS, NASTY, NASTY, st.booleans(), st.integers(5, 300))
def test_no_json_shows_a_secret(key: str, before: str, after: str, ascii_only: bool, size: int) -> None:
    """JSON, in a string of Python or of JSON, is read, and cut as well."""
    body = json.dumps({"a": before, key: after + MARKER + before, "z": after}, ensure_ascii=ascii_only)
    for text in (
        body,
        repr((body, 5)),
        json.dumps([body]),
        saferepr((body, 5)),
        json.dumps({"x": {"y": body}}),
    ):
        assert not leaks(REDACTOR.repr_text(text))
        assert not leaks(REDACTOR.repr_text(text, size))
        assert not leaks(REDACTOR.repr_text(saferepr((text,), maxlen=size)))


@settings(max_examples=300)
@given(SECRET_KEYS, st.text(min_size=1).filter(lambda text: text.isprintable()), st.integers(5, 200))
def test_no_url_shows_a_secret(key: str, around: str, size: int) -> None:
    """Quoted as it has to be, a secret is found in a query and before the host, and where that is cut."""
    query = urlencode({"a": 1, key: around + MARKER, "b": 2})
    password = quote(around + MARKER, safe="")
    for text in (f"https://h/p?{query}", query, f"redis://user:{password}@h:1/0", f"amqp://:{password}@h//"):
        for whole in (text, repr((text,)), f"<Request {text}>"):
            assert not leaks(REDACTOR.repr_text(whole))
            assert not leaks(REDACTOR.repr_text(whole, size))


@settings(max_examples=300)
@given(secret_structures().map(has_only_json))
def test_no_decoded_structure_shows_a_secret(structure: object) -> None:
    """A message's body, once decoded, is redacted by the same names."""
    assert not leaks(json.dumps(REDACTOR.value(structure)))


# What has no secret.

TEXTS = st.text("abd 123,.:;=é-_()[]{}", max_size=12)
HARMLESS = st.recursive(
    st.one_of(st.integers(), st.none(), st.booleans(), WORDS, TEXTS, st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(WORDS | TEXTS, inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(HARMLESS)
def test_structures_without_secrets_stay(structure: object) -> None:
    """Also beside words that look a little like a secret's name, nothing else changes."""
    assert repr(structure) == REDACTOR.repr_text(repr(structure), 100_000)
    plain = has_only_json(structure)
    assert plain == REDACTOR.value(plain)


@settings(max_examples=200)
@given(secret_structures())
def test_redacted_reprs_stay_readable(structure: object) -> None:
    """Python can read what comes out where it could read what went in, if no text is ambiguous."""
    plain = repr(has_only_json(structure))
    if "\\" in plain:
        return
    ast.literal_eval(REDACTOR.repr_text(plain, 100_000))


# Whatever anybody sends.

PIECES = st.lists(
    st.sampled_from(
        sorted(words_of("' \" ''' \\ ( ) [ ] { } < > , : = & ; % %3D // :// @ ... … => [redacted]"))
    )
    | st.sampled_from(sorted(words_of("password token: pin=1 b' 'x' Bearer PRIVATE KEY----- don't")))
    | st.text(" \n\x00\ud800a1", max_size=3)
    | st.text(max_size=3),
    max_size=30,
).map("".join)


@settings(max_examples=1000)
@given(PIECES | st.text(), st.integers(0, 60))
@example("password", 0)
@example("x", 1)
def test_no_text_raises(text: str, size: int) -> None:
    """Any text gives a text that is no longer than asked for, and the same again when read again."""
    shown = REDACTOR.repr_text(text, size)
    assert size >= len(shown)
    assert isinstance(REDACTOR.repr_text(shown, size), str)
    REDACTOR.value([text, {text: text}])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[",
            "{'token': ",
            "'",
            "'''a",
            "<a",
            "a[",
            "password ",
            "token=x&",
            "a+",
            "token//a:b",
            "token: a\n",
        ),
        *(
            "\\'",
            "%41token",
            "http://u:p@h ",
            " ",
            "-token",
            "'a\\', ",
            "(token: 'x', ",
            "'Ab",
            "\\",
            "://a@token",
        ),
    ],
)
def test_long_texts_take_linear_time(text: str) -> None:
    """A text ten times as long takes about ten times as long, and one that is cut takes no time."""
    short, long = (text * (size // len(text)) for size in (30_000, 300_000))
    assert 40 * max(seconds(short, 10**6), 0.002) > seconds(long, 10**6)
    assert 0.05 > seconds(text * (1_000_000 // len(text)), MAX_CHARS)


def seconds(text: str, size: int) -> float:
    """Measure the best of three, in seconds of this process."""
    times = []
    for _ in range(3):
        start = time.process_time()
        REDACTOR.repr_text(text, size)
        times.append(time.process_time() - start)
    return min(times)


def test_depth_is_no_danger() -> None:
    """Ten thousand brackets, and lists in lists, are no recursion without an end."""
    assert not leaks(REDACTOR.repr_text("[" * 10_000 + f"{{'token': '{MARKER}'", 100_000))
    deep: object = MARKER
    for _ in range(500):
        deep = {"a": [deep]}
    assert not leaks(json.dumps(REDACTOR.value({"b": deep})))


def test_values_of_other_types() -> None:
    """Numbers and times stay what they are; what JSON does not have becomes its redacted repr."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    moment = datetime(2020, 1, 1, tzinfo=timezone.utc)
    assert [1, None, 1.5, True, moment] == REDACTOR.value((1, None, 1.5, True, moment))
    assert ["{'token=[redacted]'}", "[redacted]"] == REDACTOR.value([{"token=x"}, Broken()])
    assert {1: "[redacted]"} == REDACTOR.value({1: Broken()})


def test_values_beside_their_names() -> None:
    """In decoded JSON the order of name and value does not matter, and a pair may be a list."""
    assert {"value": "[redacted]", "name": "token"} == REDACTOR.value({"value": "x", "name": "token"})
    assert [["token", "[redacted]"], ["n", 1]] == REDACTOR.value([["token", "x"], ["n", 1]])


def test_named_tuples() -> None:
    """A named tuple's repr has names; Celery's producer writes it without, and nobody can know."""
    record = namedtuple("Record", "author password")("a", MARKER)
    assert "Record(author='a', password='[redacted]')" == REDACTOR.repr_text(repr(record))
    assert leaks(REDACTOR.repr_text(saferepr(record)))


def test_standard_library_only() -> None:
    """The sidecar can use the same code: it loads neither Celery nor redis."""
    code = "import sys, celery_plugin.redact; print({'celery', 'kombu', 'redis'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()" == result.stdout.strip()
