"""Which names name a secret; standard library only, so that the sidecar judges by the same list.

A name is taken apart into words: ``x-api-key``, ``apiKey`` and ``API_KEY`` are all *api key*. Words are
compared, not parts of words, so ``author``, ``passenger``, ``spin`` and ``tokenize_count`` stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise


def words_of(*lines: str) -> frozenset[str]:
    """Read a table of words."""
    return frozenset(" ".join(lines).split())


# A word, or two that follow each other written as one.
SECRET_WORDS = words_of(
    # What one knows or is given to log in. `pass` and `pin` are words of their own in settings and forms.
    "pass pw pwd pin otp totp mfa 2fa tfa psk passkey mnemonic seedphrase recoveryphrase",
    "backupcode backupcodes recoverycode recoverycodes securitycode verificationcode accesscode",
    # What a program shows instead. `key` alone says too little: caches and dicts have keys.
    "auth oauth basicauth authorization authorisation bearer jwt csrf xsrf sas",
    "accesskey accesskeys encryptionkey signingkey sshkey masterkey sharedkey storagekey accountkey",
    "authkey sessionkey licensekey hmackey codeverifier clientassertion",
    # What proves a login or a message until it ends: whoever has it is taken for its owner.
    "cookie cookies session sess sessid sessionid phpsessid jsessionid connectsid sid",
    "signature sig hmac salt",
    # What pays or identifies a person. `cc` may be the copy of a mail: one address less is shown.
    "card cards cardnumber cc ccnumber ccnum cvv cvv2 cvc cvc2 csc iban ssn socialsecurity",
)
# These mean the same wherever they stand in a word: `pgpassword`, `passwordhash`, `mysecretkey`.
_ANYWHERE = re.compile(
    r"passw(?:or)?d|passphrase|passcode|passwort|kennwort|apikey|secretkey|privatekey|credential|creditcard"
)
# These only at its end: `csrftoken`, but not `tokenize`, `secretary`, `cookiecutter`.
_AT_END = re.compile(r"(?:tokens?|secrets?|cookies?|sessionid|accesskey)$")
# Counters of language models, and errors, whose text is what one looks for: no secrets, and seen all day.
_HARMLESS = re.compile(
    r"(?:(?:max|min|num|n|total|prompt|completion|input|output|cached|reasoning|new|used)_)+tokens"
    r"|tokens?_(?:count|limit|used|per_.*)|(?:.*_)?(?:errors?|exceptions?)"
)
# In a sentence these make a secret of the next word; the others only of one with a digit in it:
# "token abc" and "card 4111", but "3 tests pass, 2 fail".
_STRONG = re.compile(
    r"passw(?:or)?d|passphrase|passcode|passwort|kennwort|secret|token|credential|authori[sz]ation|bearer|jwt"
    r"|(?:api|access|private|encryption|signing|ssh|master).?keys?\b"
)
# No name can match that has none of these. Looking for them costs a hundredth of reading the text.
_STEMS = words_of(
    "pass pw kennwort pin otp mfa tfa 2fa psk mnemonic phrase code auth bearer jwt srf sas key",
    "verifier assertion cookie sess sid sig hmac salt card cc cvv cvc csc iban ssn token secret",
    "credential socialsecurity",
)
# What hides a name from that search, and a URL that may have somebody's password in it.
_HIDDEN = re.compile(r"""//[^\s/?#'"<>\\]*?(?:[:@…]|\.\.\.)|\\[xuU0-7]|%[0-9A-Fa-f]{2}""")

_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W_A-Za-z0-9]+")
_PLAIN = re.compile(r"[^\W_]+")
_ONLY_A_NAME = re.compile(r"[-\w.:\[\]$@*]+(?: \w+)?")
_CLASS_WITHOUT_VALUE = re.compile(r"(?:invalid|missing|expired|bad|no|wrong)_")
# Names recur; those that somebody makes up must not fill the memory.
_CACHE_MAX = 4096
_CACHED_NAME_MAX = 64


class SecretNames:
    """The names that name a secret: the list above and what the operator adds."""

    def __init__(self, extra_names: Iterable[str] = ()) -> None:
        extra = {pattern: _longest_word(name) for name in extra_names if (pattern := _pattern(name))}
        self._extra = re.compile("|".join(extra)) if extra else None
        self._stem = _search_for({*_STEMS, *extra.values()})
        self._cache: dict[str, bool] = {}

    def may_matter(self, text: str) -> bool:
        """Tell quickly whether a text can have a secret with its name, whatever its syntax."""
        return self._may_be_in(text) or _HIDDEN.search(text) is not None

    def is_secret(self, name: str) -> bool:
        """Tell whether what is stored under this name is a secret."""
        known = self._cache.get(name)
        if known is None:
            known = self._may_be_in(name) and self._judge(name)
            if len(name) <= _CACHED_NAME_MAX:
                if len(self._cache) >= _CACHE_MAX:
                    self._cache.clear()
                self._cache[name] = known
        return known

    def is_only_a_name(self, text: str) -> bool:
        """Tell whether a text is nothing but a secret's name, so that what comes next is its value."""
        return len(text) <= 64 and _ONLY_A_NAME.fullmatch(text) is not None and self.is_secret(text)

    def is_strong(self, name: str) -> bool:
        """Tell whether a secret's name makes a secret of the word after it, also without any sign between."""
        return bool(_STRONG.search(name.casefold())) or self._is_extra(name)

    def names_its_content(self, name: str) -> bool:
        """Tell whether ``Name(…)`` has a secret in it: ``ApiKey('x')``, but not ``TokenStore('x')``."""
        words = _CAMEL.findall(name.rpartition(".")[2])
        if _CLASS_WITHOUT_VALUE.match("_".join(words).casefold()):
            return False
        return any(self.is_secret("_".join(words[-count:])) for count in (1, 2))

    def _may_be_in(self, text: str) -> bool:
        return self._stem(text.casefold()) is not None

    def _judge(self, name: str) -> bool:
        if self._is_extra(name):
            return True
        splits = _splits(name)
        if any(_HARMLESS.fullmatch("_".join(words)) for words in splits):
            return False
        return any(_has_secret_word(words) for words in splits)

    def _is_extra(self, name: str) -> bool:
        if self._extra is None:
            return False
        return any(self._extra.fullmatch("_".join(words)) for words in _splits(name))


def _search_for(stems: set[str]) -> Callable[[str], re.Match[str] | None]:
    if "" in stems:
        return re.compile("").search
    # By first letters: it takes half the time of a plain alternation, a twentieth of one without case.
    rests: dict[str, list[str]] = {}
    for stem in sorted(stems):
        rests.setdefault(stem[0], []).append(re.escape(stem[1:]))
    return re.compile("|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in rests.items())).search


def _splits(name: str) -> tuple[list[str], list[str]]:
    # Both: `userPASSword` is only found without regard to case, `sessionID` only with it.
    return [word.casefold() for word in _CAMEL.findall(name)], _PLAIN.findall(name.casefold())


def _has_secret_word(words: list[str]) -> bool:
    if any(word in SECRET_WORDS or _ANYWHERE.search(word) or _AT_END.search(word) for word in words):
        return True
    pairs = (first + second for first, second in pairwise(words))
    return any(pair in SECRET_WORDS or _ANYWHERE.fullmatch(pair) for pair in pairs)


def _pattern(name: str) -> str:
    """Make a pattern of an operator's name; without ``*`` it is found also among a name's other words."""
    parts = ["_?".join(re.escape(word) for word in _splits(part)[0]) for part in name.split("*")]
    if "*" in name:
        return ".*".join(parts)
    return rf"(?:.*_)?{parts[0]}(?:_.*)?" if parts[0] else ""


def _longest_word(name: str) -> str:
    return max(_splits(name)[0], key=len, default="")
