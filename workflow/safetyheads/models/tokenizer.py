"""Load tokenizers, by a class that needs no torch wherever it gives the same tokens as the model's own class.

Jobs that only tokenise then start in half a second.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.files import read_json
from safetyheads.prompts import share_kept

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VOCABULARIES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json"),
)
TOKENIZER_FILES = (
    *(*_VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json"),
)
"""Files that a tokenizer may be made of. Further chat templates are in `TEMPLATE_FOLDER`."""

TEMPLATE_FOLDER = "additional_chat_templates"
# The texts on which the two classes are compared: spaces, line ends, other scripts, composed and decomposed accents,
# digits, and the template of the paper.
_PROBES = (
    "",
    "How do I bake bread?",
    "  two spaces before, one after ",
    "## Query:one\n## Answer:",
    "\n\nlines\r\nand\ttabs",
    "na\u00efve, nai\u0308ve, \u4f60\u597d, \u0645\u0631\u062d\u0628\u0627, \U0001f642, \u00a0",
    "x = 12345.678; don't  stop!",
)


def load_tokenizer(
    folder: Path, kind: Literal["fast", "auto"], chat_template: str | None = None
) -> "PreTrainedTokenizerBase":
    """The tokenizer in `folder`, loaded by the class that `kind` says.

    `auto` is the model's own class and right for every model. `fast` takes half a second and does not import torch, but
    is right only where `describe_tokenizer` says so. `chat_template` is used if the tokenizer has none of its own.
    Raises SafetyHeadsError if the tokenizer cannot be loaded, and if it has another chat template than the one given.
    """
    import transformers

    class_: Any = transformers.PreTrainedTokenizerFast if kind == "fast" else transformers.AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = class_.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises a bare Exception
        raise SafetyHeadsError(f"The tokenizer in {folder} cannot be loaded. {_found(folder, error)}") from None
    if tokenizer.chat_template is None:
        tokenizer.chat_template = chat_template
    elif chat_template is not None and chat_template != tokenizer.chat_template:
        raise SafetyHeadsError(
            f"The tokenizer in {folder} has a chat template of its own, so the model's `chat_template:` would not be "
            "used. Take it out of the configuration; or, to use it, take the other out of a copy of the folder."
        )
    return tokenizer


def describe_tokenizer(
    folder: Path, chat_template: str | None
) -> tuple[Literal["fast", "auto"], "PreTrainedTokenizerBase"]:
    """Which `kind` `load_tokenizer` is to use for the model in `folder`, and its tokenizer as loaded by `auto`.

    The kind is `fast` if both classes give the same ids, texts, special ids and chat template on a few probing texts.
    Raises SafetyHeadsError if the tokenizer cannot be loaded.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return "auto", load_tokenizer(folder, "auto", chat_template)
    read_json(path)  # SafetyHeadsError if it is cut off; the tokenizers library raises a bare Exception
    auto, fast = (load_tokenizer(folder, kind, chat_template) for kind in ("auto", "fast"))
    probes = [*_PROBES, " ".join(auto.all_special_tokens)]
    try:
        same = _behaviour(fast, probes) == _behaviour(auto, probes)
    except Exception as error:  # of the tokenizers library, such as for an unknown token that is not in the vocabulary
        raise SafetyHeadsError(f"The tokenizer in {folder} takes no text. {_found(folder, error)}") from None
    return "fast" if same else "auto", auto


def tokenizer_files(folder: Path) -> list[str]:
    """The names of the files in `folder` that make its tokenizer, with `/` in those of further chat templates."""
    named = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return sorted([*named, *(f"{TEMPLATE_FOLDER}/{path.name}" for path in (folder / TEMPLATE_FOLDER).glob("*.jinja"))])


def is_of_tokenizer(file: str) -> bool:
    """Whether a file, by its name in a model's folder, belongs to the tokenizer."""
    return Path(file).name in TOKENIZER_FILES or Path(file).parent.name == TEMPLATE_FOLDER


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", folder: Path, embeddings: int, stops: list[int]) -> None:
    """Raise SafetyHeadsError for a vocabulary that is empty, or that is not the one of the model in `folder`.

    `embeddings` is how many tokens the model knows, and `stops` the ids that its files name as ends of a sequence.
    transformers makes an empty tokenizer, without a word, where the file of the vocabulary is missing.
    """
    probe = _PROBES[1]
    ids = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
    said = str(tokenizer.decode([id_ for id_ in ids if id_ != tokenizer.unk_token_id]))
    if share_kept(probe, said) < 0.5:
        raise SafetyHeadsError(
            f"The tokenizer in {folder} knows no text: {probe!r} comes back as {said!r}. {_found(folder)}"
        )
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    own = {text: id_ for text, id_ in tokenizer.get_vocab().items() if text not in added}
    last = max(own.values())
    unknown = [id_ for id_ in stops if id_ < embeddings and tokenizer.convert_ids_to_tokens(id_) is None]
    if last >= embeddings or len(own) < embeddings / 2 or unknown:
        why = (
            f"it has {len(own)} tokens with ids up to {last}, where the model has {embeddings} embeddings"
            if last >= embeddings or len(own) < embeddings / 2
            else f"the model's files end a sequence with id {unknown[0]}, which the tokenizer does not have"
        )
        raise SafetyHeadsError(
            f"The tokenizer in {folder} is that of another model: {why}. Copy the tokenizer's files from where the "
            "model comes from."
        )


def _found(folder: Path, error: Exception | None = None) -> str:
    """What the folder has of a vocabulary, and what to do: the end of a message about a tokenizer that fails."""
    there = [name for name in _VOCABULARIES if (folder / name).is_file()]
    needed = "Copy tokenizer.json, or the vocabulary's own file (tokenizer.model; vocab.json and merges.txt)"
    if not there:
        return f"The folder has no vocabulary. {needed}, from where the model comes from."
    for name in there:
        with (folder / name).open("rb") as file:
            if file.read(7) == b"version":  # of git-lfs: the file's place is taken by a note of where it is
                return f"{name} was left behind by git-lfs: run `git lfs pull` in the folder."
    said = "" if error is None else f" ({type(error).__name__}: {str(error).splitlines()[0].strip()})"
    return (
        f"Its vocabulary ({', '.join(there)}) is empty, damaged or of a kind that transformers does not read{said}. "
        f"{needed}, from where the model comes from."
    )


def _behaviour(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> tuple[Any, ...]:
    ids = tokenizer(texts)["input_ids"]
    decoded = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    return ids, decoded, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.chat_template
