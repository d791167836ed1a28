/**
 * Which printable character stands for which byte in a byte-level vocabulary?
 *
 * Printable Latin-1 bytes stand for themselves, the other 68 are numbered from U+0100 in byte order; so a space is
 * "Ġ" and a newline "Ċ". Method: GPT-2's byte-level BPE.
 */

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

/** Character of each byte, [256]. */
export const BYTE_TO_CHAR: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
})();

/** Byte of each such character. */
export const CHAR_TO_BYTE: ReadonlyMap<string, number> = new Map(BYTE_TO_CHAR.map((char, byte) => [char, byte]));

/** Bytes a vocabulary entry stands for; null where a character of it stands for no byte. */
export function bytesOfByteChars(entry: string): Uint8Array | null {
  const bytes = new Uint8Array(entry.length);
  for (let i = 0; i < entry.length; ++i) {
    const byte = CHAR_TO_BYTE.get(entry[i]!);
    if (byte === undefined) return null;
    bytes[i] = byte;
  }
  return bytes;
}
