/** Writes safetensors files for tests, and broken ones from pieces. */

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A whole file: header length, JSON header padded to 8 bytes, tensors back to back. */
export function safetensorsBytes(
  entries: readonly SafetensorsEntry[],
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const { name, dtype, shape, bytes } of entries) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const data = new Uint8Array(end);
  let at = 0;
  for (const { bytes } of entries) {
    data.set(bytes, at);
    at += bytes.length;
  }
  return safetensorsFromParts(JSON.stringify(header), data);
}

/** A file from a header text as it stands, however wrong. */
export function safetensorsFromParts(headerText: string, data: Uint8Array, headerLength?: bigint): Uint8Array {
  const text = new TextEncoder().encode(headerText);
  const padded = Math.ceil(text.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded + data.length).fill(0x20, 8 + text.length, 8 + padded);
  new DataView(bytes.buffer).setBigUint64(0, headerLength ?? BigInt(padded), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + padded);
  return bytes;
}
