/**
 * Text to ids and back by the tokenizers library, and decoding in a stream that never shows half a character.
 *
 *     const tokenizer = TextTokenizer.read(jsonText);
 *     const stream = new TextStream(tokenizer);
 *     show(stream.feed(token));
 */
import { Tokenizer } from "@huggingface/tokenizers";

import { EngineError } from "./errors.ts";

const BROKEN = "\ufffd";

/** The fields of a `tokenizer.json` that are read here. */
interface TokenizerFile {
  added_tokens?: { id: number; content: string; single_word?: boolean }[];
}

/** The library's decoders; one of them has a text decoder that drops U+FEFF at the beginning of what it is given. */
interface Decoder {
  text_decoder?: TextDecoder;
  decoders?: Decoder[];
}

export class TextTokenizer {
  private constructor(
    private readonly inner: Tokenizer,
    private readonly words: Map<string, number>,
    private readonly wordPattern: RegExp | null,
  ) {}

  /** Read the text of a `tokenizer.json`. Throws `EngineError` of kind tokenizer. */
  static read(text: string): TextTokenizer {
    try {
      const file = JSON.parse(text) as TokenizerFile;
      // Added tokens that count as whole words only: the library cuts the text at each of their letters' places, also
      // where they are parts of a word. So they are found here, and the library does not know of them.
      const isWord = (token: { single_word?: boolean }): boolean => token.single_word === true;
      const added = file.added_tokens ?? [];
      const words = new Map(added.filter(isWord).map(({ content, id }) => [content, id]));
      const others = added.filter((token) => !isWord(token));
      // Cleaning up spaces is a habit of one family of models; the library does it unless told otherwise.
      const inner = new Tokenizer({ ...file, added_tokens: others }, { clean_up_tokenization_spaces: false });
      keepMarks(inner.decoder as Decoder | null);
      return new TextTokenizer(inner, words, wordPattern([...words.keys()]));
    } catch (error) {
      throw new EngineError("tokenizer", "tokenizer.json", `tokenizer.json is not readable: ${String(error)}`);
    }
  }

  /** Ids of a text, without a first token. A lone half of a surrogate pair is read as U+FFFD. */
  encode(text: string): number[] {
    const whole = text.replace(/\p{Surrogate}/gu, BROKEN);
    const parts = this.wordPattern ? whole.split(this.wordPattern) : [whole];
    // A pattern with a group puts what it matched at every second place.
    return parts.flatMap((part, place) => {
      if (place % 2) return [this.words.get(part)!];
      return part ? this.inner.encode(part, { add_special_tokens: false }).ids : [];
    });
  }

  decode(ids: readonly number[]): string {
    return ids.length ? this.inner.decode([...ids], { skip_special_tokens: true }) : "";
  }

  /** The token of an id as it is written in the vocabulary. */
  token(id: number): string {
    return this.inner.id_to_token(id) ?? "";
  }
}

/** Decodes ids one by one. Together the pieces are the text of all ids, without the U+FFFD at its end. */
export class TextStream {
  private readonly ids: number[] = [];
  private window: number[] = []; // ids from the last border on that the tokens before do not change
  private windowShown = ""; // text of the window that was shown
  private shown = 0;

  constructor(private readonly tokenizer: TextTokenizer) {}

  /** The text that this token completes; empty while a character is incomplete. */
  feed(token: number): string {
    this.ids.push(token);
    this.window.push(token);
    const text = this.tokenizer.decode(this.window);
    if (text.length <= this.windowShown.length || text.endsWith(BROKEN)) return "";
    const piece = text.slice(this.windowShown.length);
    // One whole token of context is enough for what decoders do at borders (a space before a word).
    const alone = this.tokenizer.decode([token]);
    const whole = !alone.includes(BROKEN);
    if (whole) this.window = [token];
    this.windowShown = whole ? alone : text;
    this.shown += piece.length;
    return piece;
  }

  /** The rest of the text of all ids, without what is left of a character that never became whole. */
  finish(): string {
    return this.tokenizer
      .decode(this.ids)
      .slice(this.shown)
      .replace(/\ufffd+$/u, "");
  }
}

function wordPattern(words: string[]): RegExp | null {
  if (!words.length) return null;
  const longestFirst = [...words].sort((one, other) => other.length - one.length);
  const escaped = longestFirst.map((word) => word.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"));
  const letter = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
  return new RegExp(`(?<!${letter})(${escaped.join("|")})(?!${letter})`, "u");
}

function keepMarks(decoder: Decoder | null): void {
  if (decoder?.text_decoder) decoder.text_decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  decoder?.decoders?.forEach(keepMarks);
}
