/* Texts to passages: runs of whole sentences, each with its lines in the file. As runtime/search/passages.py does it,
 * but tokens are estimated, since they are counted for every sentence. */

const MOST_TOKENS = 128; // of a passage
const FULL_ENOUGH = MOST_TOKENS / 4; // a passage of so many tokens ends with its paragraph
const TOKENS_OF_ASCII = 1 / 4; // of a character in English; one above ASCII counts as a token of its own

// After a full stop and what closes a sentence, after an empty line, and before a point of a list or a row of a table.
const SENTENCE_END =
  /[.!?…]["'”’)\]]*\s+|[。！？]\s*|\n\s*\n\s*|\n(?=[ \t]*(?:[-*+|]|[0-9]{1,3}[.)])[ \t])/gu;

/** The passages of a text, in order: their text, and the lines of the file on which they begin and end, from 1. Takes
 * time in proportion to the text: each of its characters is looked at a few times, however many sentences it has. */
export function passages(text) {
  const found = [];
  let begin = 0; // of the passage that is being filled
  let tokens = 0; // that it has
  let line = 1; // on which it begins
  const flush = (end) => {
    const held = text.slice(begin, end);
    const passage = held.trim();
    if (passage !== "") {
      const first = line + breaks(held.slice(0, held.length - held.trimStart().length));
      found.push({ text: passage, line: first, lastLine: first + breaks(passage) });
    }
    line += breaks(held);
    begin = end;
    tokens = 0;
  };
  for (const sentence of sentences(text)) {
    if (tokens + sentence.tokens > MOST_TOKENS) flush(sentence.begin);
    tokens += sentence.tokens;
    if (tokens > FULL_ENOUGH && endsParagraph(text.slice(sentence.begin, sentence.end))) flush(sentence.end);
  }
  flush(text.length);
  return found;
}

function* sentences(text) {
  let begin = 0;
  for (const { index, 0: mark } of text.matchAll(SENTENCE_END)) {
    yield* cut(text, begin, index + mark.length);
    begin = index + mark.length;
  }
  yield* cut(text, begin, text.length);
}

/** A sentence, { begin, end, tokens }, or parts of it where it is too long for a passage, cut at spaces if there are
 * some. */
function* cut(text, begin, end) {
  while (begin < end) {
    let tokens = 0;
    let fitting = begin;
    for (let next; fitting < end && (next = tokens + tokensOf(text.charCodeAt(fitting))) <= MOST_TOKENS; fitting++) {
      tokens = next;
    }
    if (fitting < end) {
      const part = text.slice(begin, fitting);
      const space = Math.max(part.lastIndexOf("\n"), part.lastIndexOf(" ")) + 1;
      if (space > part.length / 2) fitting = begin + space;
      tokens = estimatedTokens(text.slice(begin, fitting));
    }
    yield { begin, end: fitting, tokens };
    begin = fitting;
  }
}

function estimatedTokens(text) {
  let tokens = 0;
  for (let i = 0; i < text.length; i++) tokens += tokensOf(text.charCodeAt(i));
  return tokens;
}

/** The second half of a character of two counts nothing, so no passage ends before it. */
function tokensOf(unit) {
  return unit < 0x80 ? TOKENS_OF_ASCII : (unit & 0xfc00) === 0xdc00 ? 0 : 1;
}

function endsParagraph(sentence) {
  return breaks(sentence.slice(sentence.trimEnd().length)) > 1;
}

function breaks(text) {
  return text.split("\n").length - 1;
}
