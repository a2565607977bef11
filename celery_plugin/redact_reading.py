"""Reads one text and leaves out the values of secrets.

What comes in was made by somebody else: a Python repr that may be cut anywhere, JSON, or anything. So it is
not parsed. It is read token by token, and one thing is certain whatever the structure: behind the name of a
secret stands a secret. Structure only tells where that value ends; where that is in doubt it does not end.

    shown ──► 'password' ──► : ──► dropped … ──► , 'next' ──► : ──► shown
                                      └─ unreadable, or the end ──► nothing more is shown

What is inside a string is read in the same way: JSON, header lines, a query, a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from celery_plugin.redact_names import SecretNames, words_of
from celery_plugin.redact_urls import AUTHORITY, secret_in_url

MARK = "[redacted]"
# Beside a secret's name in {"name": "password", "value": "x"}.
VALUE_KEYS = words_of("value val v content data")

_TOKEN = re.compile(
    r"""
      (?P<comma>,)
    | (?P<mark>\[redacted\])
    | (?P<string>(?=['"bBuUrRfFtT])(?:(?<!\w)[bBuUrRfFtT]{1,2}(?=['"]))?(?:
          '''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''
        | \"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*\"""
        | '(?!'')[^'\\]*(?:\\.[^'\\]*)*'
        | "(?!"")[^"\\]*(?:\\.[^"\\]*)*"
      ))
    | (?P<word>[\w.\-]+(?:'[\w.\-]+)*(?:\[[\w.\-]*\])*)   # also user[password], x-api-key, don't
    | (?P<url>"""
    + AUTHORITY
    + r""")
    | (?P<sign>[:=]+>?)
    | (?P<and>[;&])
    | (?P<open>[(\[{]|<(?=[A-Za-z_]))
    | (?P<close>[)\]}>])
    | (?P<line>\n)
    | (?P<quote>['"])                                    # of a string that does not end
    | (?P<other>[^\w\s.\-'"()\[\]{}<>,:;=&/\\]+|[\\/<])
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSER = {"(": ")", "[": "]", "{": "}", "<": ">"}
_ESCAPE = re.compile(
    r"""\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(['"\\/]))"""
)
# Celery's producer escapes quotes, but no backslashes: x\ becomes 'x\', and x\'y becomes 'x\\'y'. So a string
# with the first of these in it may have ended there, one that ends with the other may go on.
_PERHAPS_OTHER = re.compile(r"""\\'\s*[,:)\]}]|\\\Z""").search
_ONLY_SIGNS = re.compile(r"[\s,:()\[\]{}]+").fullmatch
_BLANKS = re.compile(r"[^\S\n]*")
# The word before these says what key it is; alone they say nothing.
_SECOND_WORDS = words_of("key keys code codes phrase number id")
# "The token has expired": after a secret's name these words are not yet its value.
_BETWEEN = words_of(
    "is are was were be been has have had not no or and for of in on at to from by with as the a an",
    "this that your my his her their our does did do must should can cannot could will would may given",
    "provided found expired invalid missing required wrong failed failure error incorrect empty changed",
    "rejected denied authentication match matches too short long field header value values parameter",
    "argument",
)

# What can end a dropped value beside its bracket: a comma, any gap, a line's end, nothing.
_COMMA, _GAP, _LINE, _NEVER = range(4)
_OPERANDS = ("string", "word")
_AFTER_CLOSER = ("", *" \t\r\n,;&.…)]}>'\"\\")
_TRIPLE = ("'''", '"""')
# Most strings are keys or words: in those is no name that has a value.
_WORD = re.compile(r"[\w.\-]*").fullmatch


def unescaped(body: str) -> str:
    """Read the escapes of a string, all but those of white space."""
    return _ESCAPE.sub(_character, body) if "\\" in body else body


def _character(escape: re.Match[str]) -> str:
    if escape[5]:
        return escape[5]
    number = int(escape[4], 8) if escape[4] else int(escape[1] or escape[2] or escape[3], 16)
    return chr(number) if number <= 0x10FFFF else "?"


class _Unreadable(Exception):
    """Raised when nothing certain can be said of what stands at a position and after it."""

    def __init__(self, position: int) -> None:
        self.position = position


class Reading:
    """One text, read once from its start to its end."""

    def __init__(self, text: str, names: SecretNames, string: Callable[[str, str], tuple[str, bool]]) -> None:
        self.text = text
        self.names = names
        # Reads what stands between a string's quotes; also says whether it could.
        self.string = string
        # Whether it, or a string in it, could not be read to its end.
        self.unreadable = False
        self.inner_unreadable = False
        # What is shown of text[:copied]; tokens before `skip` have been dealt with.
        self.out: list[str] = []
        self.copied = 0
        self.skip = 0
        # The brackets that are open, by what closes them, and those depths where a value's name was seen.
        self.closers: list[str] = []
        self.named: set[int] = set()
        # The depth at which a value is being dropped, and what can end it beside its bracket.
        self.drop = -1
        self.until = _NEVER
        # The token before this one.
        self.last = ""
        self.last_start = 0
        self.last_end = 0
        self.name = ""
        # The item that is being read: where it began, whether nothing but one operand was seen of it.
        self.item_start = 0
        self.fresh = True
        self.single = False
        # A secret's name that was followed by no sign yet: 0 none, 1 weak, 2 strong.
        self.pending = 0
        # Whether a secret was seen inside a string.
        self.inner = False
        # The first string that perhaps ended earlier than it was read, and what was out before it.
        self.doubt = -1
        self.before_doubt = (0, 0)

    def result(self) -> str:
        """Read, and give what may be shown."""
        try:
            self._read()
        except _Unreadable as stop:
            self.unreadable = True
            self._give_up(stop.position)
        if self.drop < 0:
            self.out.append(self.text[self.copied :])
        elif self.text.endswith(("…", "...")):
            self.out.append("…")
        return "".join(self.out)

    def _read(self) -> None:
        for token in _TOKEN.finditer(self.text):
            start = token.start()
            if start < self.skip:
                if token.end() > self.skip:
                    # It reaches out of a URL that was dealt with: their ends do not agree.
                    raise _Unreadable(self.skip)
                continue
            kind = token.lastgroup or ""
            handler = _HANDLERS.get(kind)
            if handler is not None:
                handler(self, token)
            self.last, self.last_start, self.last_end = kind, start, token.end()

    def _give_up(self, position: int) -> None:
        if self.doubt >= 0:
            length, self.copied = self.before_doubt
            del self.out[length:]
            self.drop, position = -1, self.doubt
        if self.drop < 0:
            self.out += (self.text[self.copied : position], MARK)
            # For good: nothing ends this one.
            self.drop = len(self.closers)

    # Operands: strings and words.

    def _string(self, token: re.Match[str]) -> None:
        raw, start = token[0], token.start()
        if self.last_end == start and self.last in _OPERANDS:
            # No repr has this: a quote before it was taken for something else than it is.
            raise _Unreadable(self.last_start)
        if self.text[start - 1 : start] == "\\":
            # An escaped quote belongs into a string.
            raise _Unreadable(start)
        head = 0 if raw[0] in "'\"" else 1 if raw[1] in "'\"" else 2
        size = 3 if raw.startswith(_TRIPLE, head) else 1
        body = raw[head + size : -size]
        self.name = unescaped(body)
        if raw[head] == "'":
            self._check_doubt(body, start)
        if self.drop >= 0:
            self._look_for_next(start)
            return
        self.single, self.fresh = self.fresh, False
        if self.pending:
            self._begin(start, self._end_of_prose())
        elif not _WORD(body):
            self._show_string(body, token.end() - size, raw[head])
        if not self.closers and self.drop < 0 and self.names.is_only_a_name(self.name):
            self.pending = 2

    def _show_string(self, body: str, end: int, quote: str) -> None:
        shown, unreadable = self.string(body, quote)
        self.inner_unreadable |= unreadable
        if shown != body:
            self.inner = True
            self._replace(end - len(body), end, shown)

    def _word(self, token: re.Match[str]) -> None:
        word, start = token[0], token.start()
        if self.last == "string" and self.last_end == start and word.strip("."):
            raise _Unreadable(self.last_start)
        before = self.name if self.last == "word" else ""
        self.name = word
        if before and word.casefold().strip("-.") in _SECOND_WORDS:
            self.name = f"{before} {word}"
        if self.drop >= 0:
            self._look_for_next(start)
            return
        self.single, self.fresh = self.fresh, False
        if self.pending or not word[0].isdigit():
            self._weigh(word, start)

    def _weigh(self, word: str, start: int) -> None:
        """See what a word means in a sentence: a secret's name, the secret after it, or nothing."""
        if self.names.is_secret(self.name):
            self.pending = 2 if self.names.is_strong(self.name) else 1
            if word.endswith("-----"):  # -----BEGIN PRIVATE KEY-----
                self._begin(start + len(word), _NEVER)
        elif self.pending and word.casefold().rstrip(".") not in _BETWEEN and word.strip(".-"):
            if self.pending == 2 or any(sign.isdigit() for sign in word):
                self._begin(start, self._end_of_prose())
            else:
                self.pending = 0
        if word[-1] == ".":
            self.pending = 0

    def _check_doubt(self, body: str, start: int) -> None:
        if "\\" in body and _PERHAPS_OTHER(body):
            if self.drop >= 0:
                raise _Unreadable(start)
            if self.doubt < 0:
                self.doubt = start
                self.before_doubt = (len(self.out), self.copied)
        elif self.doubt >= 0 and _ONLY_SIGNS(body):
            # It looks like what stands between two strings.
            raise _Unreadable(start)

    # Signs between them.

    def _sign(self, token: re.Match[str]) -> None:
        follows = self.last in _OPERANDS and token[0] != "=="
        if self.drop >= 0:
            value = self.text[token.end() : token.end() + 1]
            if not (follows and self.fresh and self.drop == len(self.closers) and value not in ("", "\n")):
                return
            self.drop, self.copied = -1, self.item_start
        self.fresh = self.single = False
        by_line = token[0] == ":" or "cookie" in self.name.casefold() or "authori" in self.name.casefold()
        if (follows and self.names.is_secret(self.name)) or self._is_value_of_named():
            self._begin(token.end(), _LINE if by_line and not self._in_brackets() else self._end_of_value())
        elif self.pending:
            self._begin(token.end(), self._end_of_prose())

    def _comma(self, token: re.Match[str]) -> None:
        if self.drop >= 0:
            self._end_item(token.start(), _COMMA, _GAP)
            return
        self.pending = 0
        pair = self.single and (self.last == "string" or self._in_brackets())
        if pair and self.names.is_only_a_name(self.name):
            self._begin(token.end(), _COMMA)
        elif self.last == "string" and self.closers and self.names.is_only_a_name(self.name):
            self.named.add(len(self.closers))
        self.fresh, self.item_start = True, token.start()

    def _and(self, token: re.Match[str]) -> None:
        if self.drop >= 0:
            self._end_item(token.start(), _GAP)
            return
        self.pending = 0
        self.fresh = True

    def _line(self, token: re.Match[str]) -> None:
        if self.drop >= 0:
            self._end_item(token.start(), _LINE, _GAP)
        elif not self.closers:
            self.fresh = True
            self.pending = 0

    def _open(self, token: re.Match[str]) -> None:
        called = self.last == "word" and self.last_end == token.start() and token[0] == "("
        self.closers.append(_CLOSER[token[0]])
        if self.drop < 0:
            self.fresh, self.single = True, False
            if called and self.names.names_its_content(self.name):
                self._begin(token.end(), _NEVER)
            elif called:
                self.pending = 0
        elif len(self.closers) == self.drop + 1:
            self.fresh = False

    def _close(self, token: re.Match[str]) -> None:
        closer = token[0]
        if self.drop >= 0:
            self._close_dropped(closer, token)
            return
        self.fresh = self.single = False
        self.pending = 0
        while self.closers and self.closers[-1] == ">" != closer:
            # `<` is no bracket for sure: "a <b".
            self._pop()
        if self.closers and self.closers[-1] == closer:
            self._pop()

    def _close_dropped(self, closer: str, token: re.Match[str]) -> None:
        if not self.closers or (closer == ">" != self.closers[-1]):
            return
        if self.closers[-1] != closer:
            raise _Unreadable(token.start())
        self._pop()
        if len(self.closers) < self.drop:
            if self.text[token.end() : token.end() + 1] not in _AFTER_CLOSER:
                # It closed nothing: password=a)b has it in its value.
                raise _Unreadable(token.start())
            self.drop, self.copied = -1, token.start()
            self.fresh = self.single = False
            self.pending = 0

    def _pop(self) -> None:
        self.named.discard(len(self.closers))
        self.closers.pop()

    def _url(self, token: re.Match[str]) -> None:
        if self.drop >= 0:
            return
        self.fresh = self.single = False
        scheme = self.name if self.last == "word" and self.last_end == token.start() else ""
        secret = secret_in_url(self.text, token.start(), token.end(), scheme)
        if secret:
            self._replace(*secret, MARK)

    def _quote(self, token: re.Match[str]) -> None:
        start = token.start()
        if self.last_end == start and self.last in _OPERANDS:
            raise _Unreadable(self.last_start)
        # A string that was cut ends many texts. It holds no secret if it is not dropped, has no name in it,
        # and no value before it could be still open.
        uncertain = self.drop < 0 and (self.inner or self.pending or self.names.may_matter(self.text[start:]))
        if uncertain or self.doubt >= 0:
            raise _Unreadable(start)
        self.skip = len(self.text)

    def _other(self, token: re.Match[str]) -> None:
        if self.doubt >= 0 and token[0] == "\\":
            raise _Unreadable(token.start())
        self.fresh = self.single = False

    # Dropping.

    def _begin(self, position: int, until: int) -> None:
        """Show everything up to a position, and from there nothing until something ends it."""
        blanks = _BLANKS.match(self.text, position)
        position = blanks.end() if blanks else position
        self.out += (self.text[self.copied : position], self._mark(position))
        self.copied = position
        self.drop, self.until = len(self.closers), until
        self.fresh = False
        self.pending = 0

    def _mark(self, position: int) -> str:
        following = self.text[position : position + 1]
        if self.last == "string":
            quote = self.text[self.last_end - 1]
        elif following in ("'", '"'):
            quote = following
        else:
            quote = "'" if self._in_brackets() else ""
        return f"{quote}{MARK}{quote}"

    def _end_item(self, position: int, *enough: int) -> None:
        if self.drop == len(self.closers) and self.until in enough:
            self.fresh, self.item_start = True, position
        else:
            self.fresh = False

    def _look_for_next(self, start: int) -> None:
        # A value goes on until the next name with a sign behind it: what has no name still belongs to it.
        begins = self.last in ("comma", "and", "line") and self.fresh
        if not begins and self.until == _GAP and self.last_end < start:
            begins, self.item_start = True, self.last_end
        self.fresh = begins and self.drop == len(self.closers)

    def _replace(self, start: int, end: int, shown: str) -> None:
        self.out += (self.text[self.copied : start], shown)
        self.copied = self.skip = end

    # Where we are.

    def _in_brackets(self) -> bool:
        return bool(self.closers) and self.closers[-1] != ">"

    def _end_of_value(self) -> int:
        return _COMMA if self._in_brackets() else _GAP

    def _end_of_prose(self) -> int:
        return _COMMA if self._in_brackets() else _LINE

    def _is_value_of_named(self) -> bool:
        return len(self.closers) in self.named and self.name.casefold() in VALUE_KEYS


_HANDLERS: dict[str, Callable[[Reading, re.Match[str]], None]] = {
    "string": Reading._string,
    "word": Reading._word,
    "url": Reading._url,
    "sign": Reading._sign,
    "comma": Reading._comma,
    "and": Reading._and,
    "open": Reading._open,
    "close": Reading._close,
    "line": Reading._line,
    "quote": Reading._quote,
    "other": Reading._other,
}
