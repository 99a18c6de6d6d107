"""Which tokenizer goes with a model: the one that is asked for, the model's own, or the one that it is known to use.

    tokenizer, notes = find_tokenizer(None, folder, hub_id="SandyResearch/parcae-140m")

The released models keep theirs in a repository of its own, and a training run names the folder that it read.
"""

from __future__ import annotations

from pathlib import Path

from .config import ParcaeConfig
from .errors import CheckpointError, TextError, ToolMissingError
from .hub import download, is_hub_id
from .tokenizer import TEXT_FILES, TextTokenizer

RELEASED_OWNER, RELEASED_TOKENIZER = "SandyResearch", "SandyResearch/parcae-tokenizer"
MISSING = "no tokenizer, so no gate of quality, no text and no chat; --tokenizer takes a file, a folder or a hub id"


def find_tokenizer(
    wanted: str | None,
    folder: Path,
    config: ParcaeConfig,
    hub_id: str | None = None,
    trained_with: str | None = None,
) -> tuple[TextTokenizer | None, list[str]]:
    """The tokenizer of a model's folder and what to say about it; None where there is none to be found.

    `wanted` is what the user names, `trained_with` what a training run does. Raises `TextError` for a named one that is
    not there, and for one with more entries than the token table.
    """
    if wanted is not None:
        return _fitting(_named(wanted), config), []
    own = TextTokenizer.load(folder)
    if own is not None:
        return _fitting(own, config), []
    if trained_with is not None:
        return _of_training(trained_with, folder, config)
    if hub_id is not None and hub_id.partition("/")[0] == RELEASED_OWNER:
        return _released(config)
    return None, [MISSING]


def fitted_vocabulary(tokenizer: TextTokenizer, config: ParcaeConfig) -> tuple[int, list[str]]:
    """The vocabulary that a model has with its tokenizer, and a note where the two do not agree.

    The original's trainer raises the vocabulary to the tokenizer's entries, within the padded table, and saves the
    configuration before it does.
    """
    entries, said = tokenizer.vocab_size, config.vocab_size
    if entries > said:
        note = f"the tokenizer has {entries} entries, config.json says {said}: {entries} count, the table has the rows"
        return entries, [note]
    if entries < said:
        return said, [f"the tokenizer has {entries} entries, the model {said} tokens; is it this model's?"]
    return said, []


def _named(wanted: str) -> TextTokenizer:
    path = Path(wanted)
    if not path.exists():
        if not is_hub_id(wanted):
            raise TextError(f"--tokenizer {wanted}: no such file or folder, and no hub id like owner/name")
        path = download(wanted, None, TEXT_FILES)
    tokenizer = TextTokenizer.load(path)
    if tokenizer is None:
        raise TextError(f"--tokenizer {wanted}: no tokenizer.json there; give one, or a folder that holds one")
    return tokenizer


def _of_training(trained_with: str, folder: Path, config: ParcaeConfig) -> tuple[TextTokenizer | None, list[str]]:
    """What a run's `tokenizer_path` names: a folder of the machine that trained, or a hub id."""
    for place in (Path(trained_with), folder / trained_with, folder / Path(trained_with).name):
        tokenizer = TextTokenizer.load(place) if place.exists() else None
        if tokenizer is not None:
            return _fitting(tokenizer, config), [f"tokenizer of the training run: {place}"]
    if is_hub_id(trained_with):
        try:
            of_run = TextTokenizer.load(download(trained_with, None, TEXT_FILES))
        except (CheckpointError, ToolMissingError):
            of_run = None
        if of_run is not None:
            return _fitting(of_run, config), [f"tokenizer of the training run: {trained_with}, from the hub"]
    return None, [f"the run's tokenizer {trained_with} is not here; {MISSING}"]


def _released(config: ParcaeConfig) -> tuple[TextTokenizer | None, list[str]]:
    try:
        tokenizer = TextTokenizer.load(download(RELEASED_TOKENIZER, None, TEXT_FILES))
    except (CheckpointError, ToolMissingError) as error:
        return None, [f"{MISSING} ({error})"]
    if tokenizer is None or tokenizer.vocab_size > config.padded_vocab_size:
        return None, [f"{RELEASED_TOKENIZER} does not fit {config.padded_vocab_size} tokens; {MISSING}"]
    return tokenizer, [f"tokenizer of the released models: {RELEASED_TOKENIZER}"]


def _fitting(tokenizer: TextTokenizer, config: ParcaeConfig) -> TextTokenizer:
    if tokenizer.vocab_size > config.padded_vocab_size:
        raise TextError(
            f"{tokenizer.path} has the id {tokenizer.vocab_size - 1}, and the token table {config.padded_vocab_size} "
            "rows: not this model's tokenizer, or special tokens were added to it that the model never learnt"
        )
    return tokenizer
