"""A ticket opens what its token would, for a minute, at every replica, and is nothing else."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.auth_keys import secret_keys, ticket_keys
from sidecar.denials import Denied, TokenExpired, TokenInvalid
from sidecar.principal import Principal
from sidecar.scope import read_scope
from sidecar.tickets import TICKET_SECONDS, Tickets
from sidecar.tokens import Tokens
from tests.support.tokens import OTHER_SECRET, SECRET, signed, token

TICKETS = Tickets(ticket_keys([SECRET]))
TICKET_KEY = ticket_keys([SECRET])[0].value


def principal(ttl: float = 3600.0) -> Principal:
    """Who has a token for a while."""
    return Principal(read_scope({"tasks": ["a"], "names": ["x*"]}), frozenset({"args"}), time.time() + ttl)


def ticket_claims(**more: Any) -> dict[str, Any]:
    """What a good ticket says."""
    return {"exp": time.time() + 30, "until": time.time() + 60, "read": "*", "fields": []} | more


def test_it_carries_scope_and_end_of_its_token() -> None:
    """Who comes with it is the same principal, until the token ends; and may come again within its life."""
    who = principal()
    ticket, seconds = TICKETS.make(who)
    assert TICKET_SECONDS == seconds
    assert who == TICKETS.read(ticket)
    assert who == TICKETS.read(ticket)


def test_every_replica_takes_it() -> None:
    """Another sidecar with the same secrets reads it, also while they are exchanged."""
    who = principal()
    assert who == Tickets(ticket_keys([OTHER_SECRET, SECRET])).read(TICKETS.make(who)[0])
    with pytest.raises(TokenInvalid):
        Tickets(ticket_keys([OTHER_SECRET])).read(TICKETS.make(who)[0])


def test_it_does_not_outlive_its_token() -> None:
    """Of a token that ends in a moment the ticket ends with it."""
    ticket, seconds = TICKETS.make(principal(ttl=5.5))
    assert 4 <= seconds <= 6
    assert principal(5.5).expires_at == pytest.approx(TICKETS.read(ticket).expires_at, abs=1)
    with pytest.raises(TokenExpired):
        TICKETS.read(TICKETS.make(principal(ttl=-1))[0])


def test_it_ends() -> None:
    """After its minute, or after its token, it is expired."""
    for times in ({"exp": time.time() - 0.5}, {"until": time.time() - 0.5}):
        with pytest.raises(TokenExpired):
            TICKETS.read(signed(ticket_claims(**times), TICKET_KEY))


def test_a_ticket_is_no_token_and_a_token_no_ticket() -> None:
    """Neither passes for the other, though one secret makes both."""
    with pytest.raises(TokenInvalid):
        TICKETS.read(token())
    with pytest.raises(TokenInvalid):
        Tokens(secret_keys([SECRET])).read(TICKETS.make(principal())[0])


@pytest.mark.parametrize(
    "more",
    [
        {"until": None},
        {"until": "later"},
        {"until": float("inf")},
        {"until": float("nan")},
        {"read": {}},
        {"read": None},
        {"fields": None},
        {"exp": None},
    ],
)
def test_wrong_claims(more: dict[str, Any]) -> None:
    """A ticket that says less than it must is refused."""
    with pytest.raises(TokenInvalid):
        TICKETS.read(signed(ticket_claims(**more), TICKET_KEY))


@given(st.text() | st.text("eyJ.-_0aA=", max_size=40))
def test_any_text(text: str) -> None:
    """Whatever is given for a ticket is refused, and raises nothing else."""
    with pytest.raises(Denied):
        TICKETS.read(text)
