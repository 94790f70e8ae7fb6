"""The texts that embgemma-tiny learns from: freely licensed English, from packages of Debian."""

from __future__ import annotations

import gzip
import html
import itertools
import random
import re
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ...notices import tell

CORPUS = "corpus.txt"
LONGEST, SHORTEST = 400, 12  # characters of a text
SENTENCE_END = re.compile(r"(?<=[.!?][\")']) +(?=[A-Z])|(?<=[a-z\d)][.!?]) +(?=[\"'(]?[A-Z])")


class Source(NamedTuple):
    """A package of Debian, what it holds, and under which licence."""

    package: str
    licence: str
    what: str
    files: str  # a glob
    read: str  # name of the function below that reads them


SOURCES = (
    Source("dict-wn", "WordNet", "definitions and examples", "usr/share/dictd/wn.dict.dz", "wordnet"),
    Source(
        "dict-gcide", "GPL-3+", "definitions, Webster 1913 and later", "usr/share/dictd/gcide.dict.dz", "dictionary"
    ),
    Source("dict-foldoc", "GFDL-1.1+", "a dictionary of computing", "usr/share/dictd/foldoc.dict.dz", "dictionary"),
    Source("dict-jargon", "public domain", "the Jargon File", "usr/share/dictd/jargon.dict.dz", "dictionary"),
    Source("dict-devil", "public domain", "The Devil's Dictionary", "usr/share/dictd/devil.dict.dz", "dictionary"),
    Source("manpages", "GPL-2+, BSD", "manuals", "usr/share/man/man*/*.gz", "manual"),
    Source("manpages-dev", "GPL-2+, BSD", "manuals", "usr/share/man/man*/*.gz", "manual"),
    Source("perl-doc", "Artistic or GPL-1+", "manuals", "usr/share/perl/*/pod/*.pod", "prose"),
    Source("git-doc", "GPL-2", "manuals", "usr/share/doc/git/html/*.html", "page"),
    Source("gnome-user-docs", "CC-BY-SA-3.0", "help", "usr/share/help/C/**/*.page", "page"),
    Source("debian-reference-en", "GPL-2+", "a handbook", "usr/share/debian-reference/*.en.html", "page"),
    Source("debian-faq", "GPL-2+", "questions and answers", "usr/share/doc/debian/FAQ/*.en.html", "page"),
    Source("developers-reference", "GPL-2+", "a handbook", "usr/share/doc/developers-reference/**/*.html", "page"),
    Source("aptitude-doc-en", "GPL-2+", "a manual", "usr/share/doc/aptitude/html/en/*.html", "page"),
    Source("anarchism", "GFDL-1.1+, GPL-2+", "essays", "usr/share/doc/anarchism/html/**/*.html", "page"),
    Source("fortunes", "public domain, BSD", "sayings", "usr/share/games/fortunes/*.u8", "sayings"),
    Source("fortunes-min", "public domain, BSD", "sayings", "usr/share/games/fortunes/*.u8", "sayings"),
)


def wordnet(text: str) -> Iterator[str]:
    """Definitions, with and without their word, and examples."""
    for entry in re.split(r"\n(?=\S)", text):
        word, _, body = entry.partition("\n")
        body = re.sub(r"\[(syn|ant|also):.*?\]", "", body, flags=re.DOTALL)
        for sense in re.split(r"\n? +(?:n|v|adj|adv)? ?\d+: ", " " + squeeze(body)):
            definition, *examples = re.split(r"; (?=\")", sense)
            yield definition
            yield f"{word}: {definition}"
            yield from (example.strip('"; ') for example in examples)


def dictionary(text: str) -> Iterator[str]:
    """Definitions, without cross references, sources and what is said of forms."""
    for paragraph in re.split(r"\n\s*\n", re.sub(r"\[[^\]]*\]|[{}]|\\[^\\\n]*\\", "", text)):
        yield from sentences(re.sub(r"^ *(\d+\.|\([a-z]\)|<[^>]*>)+|--[A-Z][\w. ]*$", "", squeeze(paragraph)))


def manual(text: str) -> Iterator[str]:
    """Paragraphs of roff, without requests."""
    lines = (re.sub(r"\\f.|\\[-&|]|\\\(..", "", re.sub(r"^\.[BI]R? ", "", line)) for line in text.split("\n"))
    yield from prose("\n".join("" if line.startswith((".", "'")) else line for line in lines))


def page(text: str) -> Iterator[str]:
    """Paragraphs of HTML or Mallard."""
    for paragraph in re.findall(r"<(?:p|h\d|title|li|dd)\b[^>]*>(.*?)</(?:p|h\d|title|li|dd)>", text, re.DOTALL):
        yield from sentences(squeeze(html.unescape(re.sub(r"<[^>]*>", "", paragraph))))


def prose(text: str) -> Iterator[str]:
    """Paragraphs between empty lines."""
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.startswith((" ", "\t", "=")):  # an example, or a command of pod
            yield from sentences(squeeze(re.sub(r"[A-Z]<+ ?([^<>]*?) ?>+", r"\1", paragraph)))


def sayings(text: str) -> Iterator[str]:
    """Sayings between lines of "%", without who said it."""
    for saying in text.split("\n%\n"):
        yield from sentences(squeeze(re.sub(r"\n\s*-- .*", "", saying, flags=re.DOTALL)))


def descriptions() -> Iterator[str]:
    """What Debian says of its packages: the line, and sentences of the rest."""
    text = run("apt-cache", "dumpavail")
    for short, rest in re.findall(r"^Description(?:-en)?: (.*)\n((?: .*\n)*)", text, re.MULTILINE):
        yield short
        for paragraph in re.split(r"\n \.\n", rest):
            yield from sentences(squeeze(paragraph))


SUBJECTS = """\
a man,a woman,a boy,a girl,a dog,a cat,two men,two women,a child,a group of people,several children,\
a person,a young man,an old woman,a little girl,a baby,a horse,a bird,the team,a chef,a musician,\
a cyclist,a soldier,an artist,the teacher,a police officer,a farmer,a couple,a crowd,a black dog,\
a white cat,three boys,a lady,a monkey,a panda"""
ACTIONS = """\
is playing the guitar,is riding a horse,is slicing an onion,is cooking dinner,is dancing,is running,\
is eating,is sleeping on the sofa,is talking on the phone,is reading a book,is jumping over a fence,\
is swimming in a pool,is singing,is walking down the street,is climbing a rock,is painting a picture,\
is writing a letter,is driving a car,is fishing,is riding a bicycle,is playing football,is throwing a ball,\
is cutting paper,is opening a door,is carrying a bag,is smiling,is standing in front of a building,\
is sitting on a bench,is looking at a map,is drinking water,is mixing ingredients,is peeling a potato,\
is playing the piano,is pouring milk into a cup,is cleaning the kitchen,is watching television,\
is kicking a ball,is lifting weights,is feeding the ducks,is washing clothes,is chasing a stick,\
is playing chess,is crying"""
PLACES = """\
,in the park,on the beach,at night,in the snow,in a field,near a river,in a crowded room,on a stage,\
by the lake,outside,in the kitchen,on a mountain,in the rain,at a market,in front of a house,\
with a friend,on the grass,in the water"""


def scenes(count: int) -> Iterator[str]:
    """Sentences such as captions of pictures have, made by chance."""
    choose = random.Random(0)  # noqa: S311
    options = [part.split(",") for part in (SUBJECTS, ACTIONS, PLACES)]
    for _ in range(count):
        subject, action, place = map(choose.choice, options)
        if subject.split()[0] in ("two", "three", "several"):
            action = re.sub("^is ", "are ", action)
        sentence = squeeze(f"{subject} {action} {place}")
        yield sentence[0].upper() + sentence[1:] + "." * (choose.random() < 0.8)


def run(*command: str, folder: Path | None = None) -> str:
    """What a command of Debian prints."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout  # noqa: S603


def squeeze(text: str) -> str:
    """The text on one line, with single spaces."""
    return " ".join(text.split())


def sentences(paragraph: str) -> Iterator[str]:
    """The sentences one by one, and two that follow each other."""
    parts = SENTENCE_END.split(paragraph)
    yield from parts
    yield from (f"{one} {other}" for one, other in list(itertools.pairwise(parts))[::3])


def is_english_prose(text: str) -> bool:
    """Whether a text has a fitting length and is words for the most part."""
    letters = sum(char.isascii() and (char.isalpha() or char == " ") for char in text)
    return SHORTEST <= len(text) <= LONGEST and letters >= 0.85 * len(text) and " " in text


def texts_of(source: Source, folder: Path) -> Iterator[str]:
    """The texts of a package, which is unpacked in the folder."""
    for path in sorted(folder.glob(source.files)):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix in (".gz", ".dz") else content
        yield from globals()[source.read](content.decode("utf-8", "replace"))


def write_corpus(folder: Path) -> None:
    """Downloads the packages into the folder and writes corpus.txt: a text a line, none twice, mixed by chance."""
    if (folder / CORPUS).exists():
        return
    unpacked = folder / "packages"
    for source in SOURCES:
        if not (unpacked / source.package).is_dir():
            run("apt-get", "download", "-qq", source.package, folder=folder)
            (package,) = folder.glob(f"{source.package}_*.deb")
            (unpacked / source.package).mkdir(parents=True)
            run("dpkg-deb", "-x", package.name, f"packages/{source.package}", folder=folder)
    parts: dict[str, Iterable[str]] = {s.package: texts_of(s, unpacked / s.package) for s in SOURCES}
    parts |= {"descriptions of packages": descriptions(), "scenes": scenes(30_000)}
    found: dict[str, None] = {}
    for name, texts in parts.items():
        before = len(found)
        found.update(dict.fromkeys(filter(is_english_prose, (unicodedata.normalize("NFC", t.strip()) for t in texts))))
        tell(f"{name}: {len(found) - before} texts")
    lines = list(found)
    random.Random(0).shuffle(lines)  # noqa: S311
    (folder / "corpus.tmp").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "corpus.tmp").rename(folder / CORPUS)
