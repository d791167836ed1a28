import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { describeChange, readBudget } from '../../src/cli/live-budget.js';
import { engineConfig } from '../../src/config.js';
import { METRICS } from '../http/scripted.js';

const MIB = 1 << 20;
const STATE = METRICS.memory!;

describe('describeChange()', () => {
  it('says nothing when the memory is as it was', () => {
    expect(describeChange(STATE, { ...STATE, shedPlanes: 99 })).toBeNull();
  });

  it('says what went and why', () => {
    const less = { ...STATE, allowedBytes: 70 * MIB, shedExperts: 12, givenBackBytes: 21 * MIB };
    expect(describeChange(STATE, { ...less, budgetBytes: 70 * MIB })).toBe(
      'memory down from 100 MiB to 70.0 MiB, 9 experts dropped, 20.0 MiB given back so far',
    );
    expect(describeChange(STATE, { ...less, reason: 'a control group leaves less', floorBytes: 80 * MIB })).toBe(
      'memory down from 100 MiB to 70.0 MiB: a control group leaves less, 9 experts dropped, 20.0 MiB given back so far; open requests need 80.0 MiB, new ones wait',
    );
    expect(describeChange({ ...STATE, allowedBytes: 70 * MIB }, STATE)).toBe(
      'memory up from 70.0 MiB to 100 MiB: there is enough memory again, room for more experts',
    );
  });
});

describe('readBudget()', () => {
  it('understands sizes, and "auto" for what the server was told', () => {
    expect(readBudget('64MiB', () => 1)).toBe(64 * MIB);
    expect(readBudget('auto', () => 77)).toBe(77);
    expect(readBudget('auto', () => null)).toBeGreaterThan(MIB);
    expect(() => readBudget('8G', () => 1)).toThrow(expect.objectContaining({ code: 'INVALID_REQUEST' }));
  });
});

describe('--budget @FILE', () => {
  it('is looked into each time it is asked for', () => {
    const directory = mkdtempSync(join(tmpdir(), 'moestro-budget-'));
    try {
      const file = join(directory, 'budget');
      writeFileSync(file, '64MiB\n');
      const told = () => engineConfig('m', { budget: `@${file}` }, {}).budgetBytes;
      expect(told()).toBe(64 * MIB);
      writeFileSync(file, 'auto\n');
      expect(told()).toBeNull();
      rmSync(file);
      expect(told).toThrow(/Cannot read --budget "@.*budget": found nothing there, needed a text file/);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
