import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { convertCommand } from '../../src/cli/convert.js';
import { type Inspection, inspectCommand, inspectModel } from '../../src/cli/inspect.js';
import { openMoe } from '../../src/model/read-moe.js';
import { writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { makeTinyModel } from '../helpers/tiny-models.js';

const model = makeTinyModel('qwen3_moe', 2);
let directory: string;
let out: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-inspect-'));
  out = join(directory, 'tiny.moe');
  const source = join(directory, 'tiny');
  writeHuggingFace(model, source);
  const printed = await capture(() => convertCommand().parseAsync([source, out, '--threads', '1'], { from: 'user' }));
  expect(printed).toContain(`try it: moestro chat ${out}`);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function capture(work: () => Promise<unknown>): Promise<string> {
  let text = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((piece) => {
    text += String(piece);
    return true;
  });
  const errors = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    await work();
    return text;
  } finally {
    write.mockRestore();
    errors.mockRestore();
  }
}

describe('inspectCommand()', () => {
  it('prints one JSON object whose sizes agree with the architecture', async () => {
    const printed = await capture(() => inspectCommand().parseAsync([out, '--json', '--verify'], { from: 'user' }));
    const found = JSON.parse(printed) as Inspection;
    const { hiddenSize, expertSize, expertCount, layerCount, topK } = model.architecture;
    const dense = [...model.dense.values()].reduce((sum, { rows, cols }) => sum + rows * cols, 0);
    const expert = 3 * hiddenSize * expertSize;
    expect(found.parameters).toEqual({
      total: dense + layerCount * expertCount * expert,
      active: dense + layerCount * topK * expert,
    });
    expect(found.verified).toBe(true);
    expect(found.levels.map(({ level }) => level)).toEqual([2, 3, 4, 8]);
    expect(found.levels.filter(({ isDefault }) => isDefault).map(({ level }) => level)).toEqual([8]);
    expect(found.memory.floorBytes).toBeGreaterThan(64 << 20);
  });

  it('says in words what the model is', async () => {
    const printed = await capture(() => inspectCommand().parseAsync([out], { from: 'user' }));
    expect(printed).toMatch(/^tiny\n/);
    expect(printed).toMatch(/architecture {2}qwen3_moe, \d/);
    expect(printed).toMatch(/memory +at least .*iB; .*iB hold every expert at level 8/);
    expect(printed).not.toContain('verified');
  });

  it('rejects with the code of what is wrong when the path is no model', async () => {
    await expect(inspectCommand().parseAsync([directory], { from: 'user' })).rejects.toMatchObject({
      code: 'MODEL_INVALID',
    });
  });
});

describe('inspectModel()', () => {
  it('counts the scales of a record in its bits a weight', async () => {
    const found = inspectModel(await openMoe(out), false);
    const { hiddenSize, expertSize } = model.architecture;
    for (const { bitsPerWeight, expertBytes } of found.levels)
      expect(bitsPerWeight).toBeCloseTo((8 * expertBytes) / (3 * hiddenSize * expertSize), 9);
    const errors = found.levels.map(({ relativeError }) => relativeError!);
    expect(errors).toEqual([...errors].sort((a, b) => b - a));
  });
});
