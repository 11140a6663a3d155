"""The notes beside entries of a turn's log, for a replica that takes the turn over.

Beside words stands the model's work so far, and beside the first ones when they came. Beside `usage` stands how the
turn is about to end: who finds it has only to save the words and end the turn in just that way, so that two replicas
can't end it differently.
"""

import json
from datetime import datetime

from services.chat.turn import CancellationCause, Cancelled, Completed, End, Failed, FinishReason, Usage
from services.shared.errors import Reason


def of_words(usage: Usage, first_text_time: datetime | None = None) -> str:
    note = f"{usage.prompt_tokens} {usage.completion_tokens}"
    return f"{note} {first_text_time.isoformat()}" if first_text_time else note


def in_words(note: str) -> tuple[Usage, datetime | None]:
    prompt_tokens, completion_tokens, *times = note.split()
    usage = Usage(int(prompt_tokens), int(completion_tokens))
    return usage, datetime.fromisoformat(times[0]) if times else None


def of_end(end: End) -> str:
    match end:
        case Completed(finish_reason):
            return json.dumps(["completed", finish_reason])
        case Failed(reason, message):
            return json.dumps(["failed", reason, message])
        case Cancelled(_, cause, freed_after_ms):
            return json.dumps(["cancelled", cause, freed_after_ms])


def end_in(note: str) -> End:
    match json.loads(note):
        case ["completed", finish_reason]:
            return Completed(FinishReason(finish_reason))
        case ["failed", reason, message]:
            return Failed(Reason(reason), message)
        case ["cancelled", cause, freed_after_ms]:
            return Cancelled(None, CancellationCause(cause), freed_after_ms)
    raise ValueError(f"not a note about an end: {note}")
