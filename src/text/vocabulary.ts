/**
 * Token ids back to bytes: the vocabulary and the `decoder` of tokenizer.json, worked out once per token at load.
 */
import type { AddedToken } from './added-tokens.js';
import { bytesOfByteChars } from './byte-chars.js';
import { asArray, asObject, asString, invalid, type JsonObject, unsupported } from './tokenizer-json.js';

const SUPPORTED = ['ByteLevel', 'Metaspace', 'Sequence of Replace, ByteFallback, Fuse, Strip'];

/** How entries of the vocabulary become text. */
interface DecodeRules {
  isByteLevel: boolean;
  /** "<0x0A>" stands for that byte. */
  hasByteFallback: boolean;
  readonly replacements: (readonly [string, string])[];
  /** Characters to take off the front of the whole text, and how many of them at most. */
  stripStart: { readonly content: string; readonly count: number } | null;
  /** Spaces of the first token are left out altogether. */
  isFirstWithoutSpaces: boolean;
}

function readDecoder(value: unknown): DecodeRules {
  const rules: DecodeRules = {
    isByteLevel: false,
    hasByteFallback: false,
    replacements: [],
    stripStart: null,
    isFirstWithoutSpaces: false,
  };
  let isFused = false;
  const step = (config: JsonObject, place: string): void => {
    const type = asString(config.type, `${place}.type`);
    switch (type) {
      case 'ByteLevel':
        rules.isByteLevel = true;
        return;
      case 'ByteFallback':
        rules.hasByteFallback = true;
        return;
      case 'Fuse':
        isFused = true;
        return;
      case 'Replace': {
        const pattern = asObject(config.pattern, `${place}.pattern`);
        if (pattern.String === undefined || isFused)
          throw unsupported(place, 'Replace by pattern or after Fuse', ['Replace of a String before Fuse']);
        rules.replacements.push([
          asString(pattern.String, `${place}.pattern.String`),
          asString(config.content, `${place}.content`),
        ]);
        return;
      }
      case 'Strip': {
        const count = Number(config.start ?? 0);
        if (!isFused || Number(config.stop ?? 0) !== 0 || !Number.isInteger(count) || count < 0)
          throw unsupported(place, 'Strip before Fuse or at the end', ['Strip at the start, after Fuse']);
        rules.stripStart = { content: asString(config.content, `${place}.content`), count };
        return;
      }
      case 'Metaspace': {
        const mark = config.replacement === undefined ? '▁' : asString(config.replacement, `${place}.replacement`);
        rules.replacements.push([mark, ' ']);
        rules.isFirstWithoutSpaces = config.prepend_scheme !== 'never' && config.add_prefix_space !== false;
        return;
      }
      case 'Sequence':
        asArray(config.decoders, `${place}.decoders`).forEach((part, i) => {
          const inner = `${place}.decoders[${i}]`;
          step(asObject(part, inner), inner);
        });
        return;
      default:
        throw unsupported(place, type, SUPPORTED);
    }
  };
  const place = 'tokenizer.json decoder';
  if (value === null || value === undefined) throw invalid(place, value, `one of ${SUPPORTED.join(', ')}`);
  step(asObject(value, place), place);
  return rules;
}

export class Vocabulary {
  /** One above the highest id. */
  readonly size: number;
  readonly stripStart: { readonly content: string; readonly count: number } | null;
  /** Token i is bytes[offsets[i]..offsets[i + 1]): a few MB where an array of strings takes ten times that. */
  private readonly offsets: Uint32Array;
  private readonly bytes: Uint8Array;
  private readonly special: ReadonlyMap<number, string>;
  private readonly isFirstWithoutSpaces: boolean;

  /**
   * @param entries id of each entry of the model's vocabulary.
   * @param added tokens beside it; their content is taken literally.
   * @param decoder the `decoder` of tokenizer.json.
   * @throws {MoestroError} UNSUPPORTED_TOKENIZER, MODEL_INVALID
   */
  constructor(entries: ReadonlyMap<string, number>, added: readonly AddedToken[], decoder: unknown) {
    const rules = readDecoder(decoder);
    this.stripStart = rules.stripStart;
    this.isFirstWithoutSpaces = rules.isFirstWithoutSpaces;
    this.special = new Map(added.filter((token) => token.isSpecial).map((token) => [token.id, token.content]));
    const contents: (Uint8Array | undefined)[] = [];
    const encoder = new TextEncoder();
    for (const [entry, id] of entries) contents[id] = bytesOfEntry(entry, rules, encoder);
    for (const token of added) contents[token.id] = encoder.encode(token.content);
    this.size = contents.length;
    this.offsets = new Uint32Array(this.size + 1);
    for (let id = 0; id < this.size; ++id) this.offsets[id + 1] = this.offsets[id]! + (contents[id]?.length ?? 0);
    this.bytes = new Uint8Array(this.offsets[this.size]!);
    for (let id = 0; id < this.size; ++id) {
      const content = contents[id];
      if (content !== undefined) this.bytes.set(content, this.offsets[id]!);
    }
  }

  isSpecial(id: number): boolean {
    return this.special.has(id);
  }

  /** Bytes of one token, special or not; a view that must not be written. Empty for ids that have no token. */
  content(id: number): Uint8Array {
    if (!Number.isInteger(id) || id < 0 || id >= this.size) return this.bytes.subarray(0, 0);
    return this.bytes.subarray(this.offsets[id]!, this.offsets[id + 1]!);
  }

  /** The same where the token is the first of its text. */
  firstContent(id: number): Uint8Array {
    const content = this.content(id);
    if (!this.isFirstWithoutSpaces || this.special.has(id)) return content;
    return content.filter((byte) => byte !== 0x20);
  }
}

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

/** Byte that an entry such as "<0x0A>" stands for; null for every other entry. */
export function fallbackByte(entry: string): number | null {
  const match = BYTE_TOKEN.exec(entry);
  return match === null ? null : Number.parseInt(match[1]!, 16);
}

function bytesOfEntry(entry: string, rules: DecodeRules, encoder: InstanceType<typeof TextEncoder>): Uint8Array {
  const byte = rules.hasByteFallback ? fallbackByte(entry) : null;
  if (byte !== null) return Uint8Array.of(byte);
  if (rules.isByteLevel) {
    const bytes = bytesOfByteChars(entry);
    if (bytes !== null) return bytes;
  }
  let text = entry;
  for (const [from, to] of rules.replacements) if (from !== '') text = text.replaceAll(from, to);
  return encoder.encode(text);
}
