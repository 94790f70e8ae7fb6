"""The words of languages and how frequent they are, from the package wordfreq.

Its lists are made of Wikipedia, subtitles, news, books and the web (Robyn Speer, wordfreq, 2022). Its code is under the
Apache License 2.0, the lists are under CC BY-SA 4.0. None of them is in a file: they say what to keep.
"""

from __future__ import annotations

from ...kernels.errors import InputError
from ...kernels.install import pip_install

UNSPACED = ("ja", "km", "lo", "my", "th", "zh")  # languages without spaces between words


def words_of(language: str) -> dict[str, float]:
    """Words of a language in small letters, and the share that each has in texts.

    Raises InputError where wordfreq is not installed, or does not know the language.
    """
    try:
        import wordfreq
    except ImportError as error:
        raise InputError(
            f"the words of languages are in the package wordfreq; run `{pip_install('languages')}`"
        ) from error
    known = sorted(wordfreq.available_languages("best"))
    if language not in known:
        raise InputError(
            f"{language!r} is no language known here; expected a list such as en,de, of {', '.join(known)}"
        )
    return dict(wordfreq.get_frequency_dict(language, wordlist="best"))
