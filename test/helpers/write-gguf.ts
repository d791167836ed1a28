/** Writes GGUF files for tests, version 3 unless told otherwise. */

const VALUE_TYPES = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;
type ScalarType = Exclude<keyof typeof VALUE_TYPES, 'array'>;

export type GgufValue =
  | { readonly type: ScalarType; readonly value: number | string | boolean }
  | { readonly type: 'array'; readonly of: ScalarType; readonly value: readonly (number | string | boolean)[] };

export const GGML_TYPE_IDS = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 8, Q4_K: 12, IQ4_NL: 20, BF16: 30 } as const;

export interface GgufTensor {
  readonly name: string;
  /** ggml's order: the length of a row first. */
  readonly dims: readonly number[];
  readonly type: number;
  readonly bytes: Uint8Array;
  /** Overrides where the header says the tensor lies. */
  readonly offset?: number;
}

export interface GgufParts {
  readonly metadata: Readonly<Record<string, GgufValue>>;
  readonly tensors: readonly GgufTensor[];
  readonly version?: number;
  readonly magic?: string;
  readonly tensorCount?: bigint;
  readonly metadataCount?: bigint;
  readonly alignment?: number;
}

/** A whole file. Counts and offsets can be overridden to make a broken one. */
export function ggufBytes(parts: GgufParts): Uint8Array {
  const alignment = parts.alignment ?? 32;
  const out = new ByteWriter();
  out.raw(new TextEncoder().encode(parts.magic ?? 'GGUF'));
  out.scalar('u32', parts.version ?? 3);
  out.scalar('u64', parts.tensorCount ?? BigInt(parts.tensors.length));
  out.scalar('u64', parts.metadataCount ?? BigInt(Object.keys(parts.metadata).length));
  for (const [key, value] of Object.entries(parts.metadata)) {
    out.scalar('string', key);
    out.scalar('u32', VALUE_TYPES[value.type]);
    if (value.type === 'array') {
      out.scalar('u32', VALUE_TYPES[value.of]);
      out.scalar('u64', value.value.length);
      for (const one of value.value) out.scalar(value.of, one);
    } else out.scalar(value.type, value.value);
  }
  let offset = 0;
  for (const tensor of parts.tensors) {
    out.scalar('string', tensor.name);
    out.scalar('u32', tensor.dims.length);
    for (const size of tensor.dims) out.scalar('u64', size);
    out.scalar('u32', tensor.type);
    out.scalar('u64', tensor.offset ?? offset);
    offset += Math.ceil(tensor.bytes.length / alignment) * alignment;
  }
  for (const tensor of parts.tensors) {
    out.pad(alignment);
    out.raw(tensor.bytes);
  }
  out.pad(alignment);
  return out.take();
}

class ByteWriter {
  private readonly pieces: Uint8Array[] = [];
  private length = 0;

  raw(bytes: Uint8Array): void {
    this.pieces.push(bytes);
    this.length += bytes.length;
  }

  pad(alignment: number): void {
    this.raw(new Uint8Array((alignment - (this.length % alignment)) % alignment));
  }

  scalar(type: ScalarType, value: number | bigint | string | boolean): void {
    if (type === 'string') {
      const text = new TextEncoder().encode(String(value));
      this.scalar('u64', text.length);
      this.raw(text);
      return;
    }
    const view = new DataView(new ArrayBuffer(8));
    const bytes = { u8: 1, i8: 1, bool: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8 }[type];
    if (type === 'u64' || type === 'i64') view.setBigInt64(0, BigInt.asIntN(64, BigInt(value)), true);
    else if (type === 'f64') view.setFloat64(0, Number(value), true);
    else if (type === 'f32') view.setFloat32(0, Number(value), true);
    else view.setInt32(0, Number(value), true);
    this.raw(new Uint8Array(view.buffer, 0, bytes));
  }

  take(): Uint8Array {
    const all = new Uint8Array(this.length);
    let at = 0;
    for (const piece of this.pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
}
