import { describe, expect, it } from 'vitest';
import { banner } from '../../src/cli/banner.js';
import { INFO } from '../http/scripted.js';

const FACTS = { info: INFO, version: '1.2.3', address: 'http://127.0.0.1:8080', needsKey: false };

describe('banner()', () => {
  it('says where, what, where the memory goes, and gives a line to paste', () => {
    const text = banner(FACTS);
    expect(text.split('\n')[0]).toBe('Moestro 1.2.3 serves scripted at http://127.0.0.1:8080');
    expect(text).toContain('scripted (qwen3_moe), experts at 8 bits, mode exact');
    expect(text).toContain('budget 100 MiB');
    for (const line of [
      /dense weights +10\.0 MiB/,
      /KV cache +5\.00 MiB .*512 positions/,
      /experts +20\.0 MiB +7 of 9/,
    ]) {
      expect(text).toMatch(line);
    }
    expect(text).toMatch(/^ {2}curl http:\/\/127\.0\.0\.1:8080\/v1\/chat\/completions -H .* -d '\{.*France.*\}'$/m);
  });

  it('says where prompts are kept for later ones, if they are', () => {
    expect(banner(FACTS)).toContain('  Of the KV cache up to 2.00 MiB keep prompts for those that begin alike\n');
    const stored = { ...INFO, prefix: { keptBytesMax: 2 << 20, directory: '/var/prefixes/x', diskBytes: 2 ** 33 } };
    expect(banner({ ...FACTS, info: stored })).toContain('and on disk up to 8.00 GiB: /var/prefixes/x\n');
    expect(banner({ ...FACTS, info: { ...INFO, prefix: null } })).not.toContain('begin alike');
  });

  it('shows parts that add up to the budget', () => {
    const { dense, kv, experts, scratch, runtime, unused, total } = INFO.memory;
    expect(dense + kv + experts + scratch + runtime + unused).toBe(total);
  });

  it('puts the key into the line to paste when the server has keys', () => {
    expect(banner({ ...FACTS, needsKey: true })).toContain(
      "curl http://127.0.0.1:8080/v1/chat/completions -H 'authorization: Bearer",
    );
  });
});
