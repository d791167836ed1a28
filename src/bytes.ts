/** Byte sizes as people write them. Decimal and binary units are told apart; a bare letter ("8G") is refused as unclear. */
import { MoestroError } from './errors.js';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

export const BYTE_FORMS =
  'bytes ("8589934592"), a decimal or binary unit ("1.5GB", "8GiB") or a share of the memory ("60%")';

/**
 * "8GiB", "1.5GB", "60%" or "8589934592" to whole bytes.
 *
 * @param name what the value is for, named in errors: a flag or a variable.
 * @param whole bytes that percentages are of.
 * @throws {MoestroError} INVALID_CONFIG naming the value and the accepted forms.
 */
export function parseBytes(text: string, name: string, whole: number): number {
  const refuse = (found: string): never => {
    throw new MoestroError('INVALID_CONFIG', `Cannot use ${name} "${text}": found ${found}, needed ${BYTE_FORMS}`, {
      name,
      found: text,
    });
  };
  const match = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z%]*)\s*$/i.exec(text);
  if (match === null) return refuse('no positive number with a unit');
  const number = Number(match[1]);
  const unit = (match[2] ?? '').toLowerCase();
  if (unit === '%') {
    if (number <= 0 || number > 100) return refuse('a share outside of 0% to 100%');
    return Math.floor((number / 100) * whole);
  }
  const scale = UNITS[unit];
  if (scale === undefined) return refuse(`the unit "${match[2]}"`);
  const bytes = Math.floor(number * scale);
  if (bytes < 1 || !Number.isSafeInteger(bytes)) return refuse('a size outside of 1 byte to 8 PiB');
  return bytes;
}

/** Bytes for people: "3.1 GiB", three digits at most. */
export function formatBytes(bytes: number): string {
  const steps = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let step = 0;
  while (Math.abs(value) >= 1024 && step < steps.length - 1) {
    value /= 1024;
    step++;
  }
  const digits = step === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${steps[step]}`;
}

/** The least whole number of MiB that holds `bytes`: a figure that works when it is typed back as a budget. */
export function formatBytesUp(bytes: number): string {
  return `${Math.ceil(bytes / (1 << 20))} MiB`;
}
