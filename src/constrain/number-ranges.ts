/** Numbers within bounds as automata over their digits: exact, since a text is compared and not a rounded value. */
import { bytes, choice, type Expression, literal, NOTHING, optional, repeat, sequence } from './expression.js';
import { DIGIT } from './json-text.js';

/** Digits of a whole number and of a fraction at most, as in json-text.ts and fewer: 15 in all are exact in a double. */
const WHOLE_DIGITS_MAX = 18;
const FRACTION_DIGITS_MAX = 6;

const digits = (first: number, last: number): Expression =>
  first > last ? NOTHING : bytes([[0x30 + first, 0x30 + last]]);
const anyDigits = (count: number): Expression => repeat(DIGIT, count, count);

/** Whole numbers from `low` to `high`, null for no bound. Without -0. */
export function integersBetween(low: bigint | null, high: bigint | null): Expression {
  const most = 10n ** BigInt(WHOLE_DIGITS_MAX) - 1n;
  const from = low === null || low < -most ? -most : low;
  const to = high === null || high > most ? most : high;
  if (from > to) return NOTHING;
  const options: Expression[] = [];
  if (from < 0n) {
    const nearest = to < 0n ? -to : 1n;
    options.push(sequence([literal('-'), magnitudes(nearest, -from)]));
  }
  if (to >= 0n) options.push(magnitudes(from > 0n ? from : 0n, to));
  return choice(options);
}

/** Digits of a number from `low` to `high`, both 0 or more, without leading zeros. */
function magnitudes(low: bigint, high: bigint): Expression {
  const options: Expression[] = [];
  const a = low.toString();
  const b = high.toString();
  for (let length = a.length; length <= b.length; ++length) {
    const least = length === a.length ? a : `1${'0'.repeat(length - 1)}`;
    const most = length === b.length ? b : '9'.repeat(length);
    options.push(sameLength(least, most));
  }
  return choice(options);
}

/** Digits between two numbers of the same length. */
function sameLength(low: string, high: string): Expression {
  if (low === '') return sequence([]);
  // Without this shortcut both ends would be followed down to the last digit, twice as many at each.
  if (/^0*$/.test(low) && /^9*$/.test(high)) return anyDigits(low.length);
  const first = Number(low[0]);
  const last = Number(high[0]);
  const rest = low.length - 1;
  if (first === last) return sequence([literal(low[0]!), sameLength(low.slice(1), high.slice(1))]);
  return choice([
    sequence([literal(low[0]!), sameLength(low.slice(1), '9'.repeat(rest))]),
    sequence([digits(first + 1, last - 1), anyDigits(rest)]),
    sequence([literal(high[0]!), sameLength('0'.repeat(rest), high.slice(1))]),
  ]);
}

export interface Bound {
  readonly value: number;
  readonly isExclusive: boolean;
}

/**
 * Numbers within bounds, written without an exponent and with up to six digits of fraction. Bounds that have more digits
 * than that leave the whole numbers between them.
 */
export function numbersBetween(low: Bound | null, high: Bound | null): Expression {
  const least = low === null ? null : decimal(low);
  const most = high === null ? null : decimal(high);
  if (least === undefined || most === undefined) return integersBetween(wholeAbove(low), wholeBelow(high));
  // Each sign by itself, as distances from zero. JSON has -0, and few readers expect it.
  const aboveZero: Decimal = { isNegative: false, whole: 0n, fraction: '', isExclusive: true };
  const options: Expression[] = [];
  if (least === null || least.isNegative) {
    options.push(sequence([literal('-'), magnitudesBetween(most?.isNegative ? most : aboveZero, least)]));
  }
  if (most === null || !most.isNegative) {
    options.push(magnitudesBetween(least === null || least.isNegative ? null : least, most));
  }
  return choice(options);
}

/** The least whole number within a lower bound; null for none. */
export function wholeAbove(bound: Bound | null): bigint | null {
  if (bound === null) return null;
  const whole = BigInt(Math.ceil(bound.value));
  return bound.isExclusive && Number.isInteger(bound.value) ? whole + 1n : whole;
}

/** The greatest whole number within an upper bound; null for none. */
export function wholeBelow(bound: Bound | null): bigint | null {
  if (bound === null) return null;
  const whole = BigInt(Math.floor(bound.value));
  return bound.isExclusive && Number.isInteger(bound.value) ? whole - 1n : whole;
}

interface Decimal {
  readonly isNegative: boolean;
  readonly whole: bigint;
  /** Digits of the fraction without zeros at the end. */
  readonly fraction: string;
  readonly isExclusive: boolean;
}

function decimal({ value, isExclusive }: Bound): Decimal | undefined {
  const match = /^(-?)(\d{1,9})(?:\.(\d{1,6}))?$/.exec(String(value));
  if (match === null) return undefined;
  return { isNegative: match[1] === '-', whole: BigInt(match[2]!), fraction: match[3] ?? '', isExclusive };
}

const FRACTION = optional(sequence([literal('.'), repeat(DIGIT, 1, FRACTION_DIGITS_MAX)]));

/** Distances from zero between two others; null for zero itself and for no bound. */
function magnitudesBetween(near: Decimal | null, far: Decimal | null): Expression {
  const from = near?.whole ?? 0n;
  const to = far?.whole ?? 10n ** 9n - 1n;
  if (from > to) return NOTHING;
  const whole = (low: bigint, high: bigint): Expression => (low > high ? NOTHING : magnitudes(low, high));
  if (from === to) {
    return sequence([literal(from.toString()), fractions(near, far)]);
  }
  return choice([
    sequence([literal(from.toString()), fractions(near, null)]),
    sequence([whole(from + 1n, to - 1n), FRACTION]),
    sequence([literal(to.toString()), fractions(null, far)]),
  ]);
}

/** Fractions, the point included, at least that of `near` and at most that of `far`; the empty one is zero. */
function fractions(near: Decimal | null, far: Decimal | null): Expression {
  const least = pad(near?.fraction ?? '');
  const most = far === null ? '9'.repeat(FRACTION_DIGITS_MAX) : pad(far.fraction);
  const low = BigInt(least) + (near?.isExclusive ? 1n : 0n);
  const high = BigInt(most) - (far?.isExclusive ? 1n : 0n);
  if (low > high) return NOTHING;
  const text = (value: bigint): string => value.toString().padStart(FRACTION_DIGITS_MAX, '0');
  const some = prefixes(text(low), text(high));
  return low === 0n ? optional(sequence([literal('.'), some])) : sequence([literal('.'), some]);
}

const pad = (fraction: string): string => fraction.padEnd(FRACTION_DIGITS_MAX, '0');

/** One to all digits of fractions between two of full length; what is left out counts as zeros. */
function prefixes(low: string, high: string): Expression {
  if (low === '') return sequence([]);
  if (/^0*$/.test(low) && /^9*$/.test(high)) return repeat(DIGIT, 1, low.length);
  const first = Number(low[0]);
  const last = Number(high[0]);
  const rest = low.length - 1;
  const zeros = '0'.repeat(rest);
  const nines = '9'.repeat(rest);
  /** After this digit: the rest may be left out where zeros are within. */
  const tail = (least: string, most: string): Expression => {
    if (rest === 0) return sequence([]);
    const more = prefixes(least, most);
    return least === zeros ? optional(more) : more;
  };
  if (first === last) return sequence([literal(low[0]!), tail(low.slice(1), high.slice(1))]);
  return choice([
    sequence([literal(low[0]!), tail(low.slice(1), nines)]),
    sequence([digits(first + 1, last - 1), repeat(DIGIT, 0, rest)]),
    sequence([literal(high[0]!), tail(zeros, high.slice(1))]),
  ]);
}
