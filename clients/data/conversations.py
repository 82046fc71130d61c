"""Conversations: rows of turns, and how they are read."""

from dataclasses import dataclass

from slimfed.clients.spec import DataSpec

ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: str
    content: str


Chat = tuple[Turn, ...]


def uses_template(data: DataSpec) -> bool:
    """True if the text is written by a chat template."""
    return data.messages is not None or data.template in ("tokenizer", "chatml")


def parse_chat(value: object, system: str) -> Chat:
    """The turns of a row's value, behind ``system`` if that is not empty and they have none of their own.

    Raises ``ValueError`` with what is wrong.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"is {type(value).__name__}, must be a list of turns")
    turns = []
    for place, each in enumerate(value, start=1):
        role, content = (each.get("role"), each.get("content")) if isinstance(each, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise ValueError(f"has a turn ({place}) without role and content, both texts")
        turns.append(Turn(role, content))
    if not any(turn.role == ASSISTANT and turn.content.strip() for turn in turns):
        raise ValueError("has no turn of the role assistant with words to learn")
    return with_system(tuple(turns), system)


def with_system(chat: Chat, system: str) -> Chat:
    """``chat`` behind a system message, if ``system`` is not empty and it has none of its own."""
    return chat if not system or chat[0].role == "system" else (Turn("system", system), *chat)
