import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ERRORS, MoestroError, toMoestroError } from '../src/errors.js';

describe('docs/errors.md', () => {
  it('has exactly the rows of ERRORS', () => {
    const page = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8');
    const rows = page
      .split('\n')
      .filter((line) => /^\| [A-Z_]+ \|/.test(line))
      .map((line) => line.split('|').map((cell) => cell.trim()));
    const written = rows.map(([, code, status, type, wire, retry, exit]) => ({
      code,
      status,
      type,
      wire,
      retry,
      exit,
    }));
    const wanted = Object.entries(ERRORS).map(([code, kind]) => ({
      code,
      status: String(kind.status),
      type: kind.type,
      // BUDGET_EXCEEDED needs no word of its own: its code in lower case is that word.
      wire: 'wireCode' in kind && kind.wireCode !== undefined ? kind.wireCode : code.toLowerCase(),
      retry: kind.retry ? 'yes' : 'no',
      exit: String(kind.exit),
    }));
    expect(written).toEqual(wanted);
    for (const row of rows) expect(row[7]!.length).toBeGreaterThan(10);
  });
});

describe('toMoestroError()', () => {
  it('keeps the code that native code gave an error', () => {
    const native = Object.assign(new Error('Cannot read'), { code: 'IO_ERROR' });
    expect(toMoestroError(native)).toMatchObject({ code: 'IO_ERROR', message: 'Cannot read', cause: native });
  });

  it('calls everything else INTERNAL', () => {
    expect(toMoestroError(Object.assign(new Error('x'), { code: 'ENOENT' })).code).toBe('INTERNAL');
    expect(toMoestroError('text')).toMatchObject({ code: 'INTERNAL', message: 'text' });
  });

  it('leaves our own errors as they are', () => {
    const error = new MoestroError('QUEUE_FULL', 'Cannot take it');
    expect(toMoestroError(error)).toBe(error);
  });
});
