"""The hub of Hugging Face, which a machine may be cut off from."""

import os
from contextlib import suppress
from functools import cache
from threading import Event, Thread

from huggingface_hub import constants
from huggingface_hub.utils import get_session

PATIENCE = 5.0  # seconds


@cache
def look_for_the_hub() -> None:
    """Ask the hub once; without an answer, have all libraries read their caches alone, in child processes too.

    They would ask again for each file, for half a minute.
    """
    if constants.HF_HUB_OFFLINE:
        return
    answered = Event()

    def ask() -> None:
        with suppress(Exception):  # of an HTTP library that differs between versions
            get_session().head(constants.ENDPOINT, timeout=PATIENCE)
            answered.set()

    thread = Thread(target=ask, daemon=True)  # looking up a name has no time limit of its own
    thread.start()
    thread.join(PATIENCE)
    if not answered.is_set():
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"
        print(f"{constants.ENDPOINT} cannot be reached: reading local caches alone", flush=True)
