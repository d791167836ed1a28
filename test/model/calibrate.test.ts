import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EngineClient, EngineEvent, GenerateRequest } from '../../src/engine/types.js';
import { type CalibratedConvertOptions, convertCalibrated } from '../../src/model/calibrate.js';
import { convert } from '../../src/model/convert.js';
import { openMoe, verifyMoe } from '../../src/model/read-moe.js';
import { loadAddon } from '../../src/native/binding.js';
import type { TextModel } from '../../src/text/types.js';
import { writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { makeTinyModel } from '../helpers/tiny-models.js';

const model = makeTinyModel('olmoe', 9);
const { hiddenSize, expertSize } = model.architecture;
let directory: string;
let source: string;
let textPath: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-calibrate-'));
  source = join(directory, 'source');
  textPath = join(directory, 'sample.txt');
  writeHuggingFace(model, source);
  writeFileSync(textPath, 'x'.repeat(1300));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** An engine that counts what it is given and finds the first eighth of all columns a hundred times as important. */
class CountingEngine {
  readonly prompts: (readonly number[])[] = [];
  readonly info = { contextLength: 600 } as EngineClient['info'];
  isCollecting = false;
  width = 0;
  isClosed = false;

  async *generate(request: GenerateRequest): AsyncIterable<EngineEvent> {
    expect(this.isCollecting).toBe(true);
    this.prompts.push(request.promptIds);
    yield { kind: 'finish', reason: 'length', usage: {} as never };
  }
  async collectImportance(on: boolean, width = 1): Promise<void> {
    this.isCollecting = on;
    this.width = width;
  }
  async importance(): Promise<{ tokens: number; gateUp: Float32Array; down: Float32Array }> {
    // Columns that do not move together: squares alone.
    const sums = (length: number) => {
      const products = new Float32Array(length * this.width);
      for (let i = 0; i < length; i++) products[i * this.width + (i % this.width)] = i < length / 8 ? 100_000 : 1000;
      return products;
    };
    return { tokens: 1000, gateUp: sums(hiddenSize), down: sums(expertSize) };
  }
  async close(): Promise<void> {
    this.isClosed = true;
  }
}

const options = (out: string, engine: CountingEngine): CalibratedConvertOptions => ({
  source,
  out,
  textPath,
  bits: 4,
  threads: 1,
  startEngine: async () => engine as unknown as EngineClient,
  loadTextModel: async () => ({ encode: (text: string) => [...text].map((_, i) => i % 7) }) as unknown as TextModel,
});

describe('convertCalibrated()', () => {
  it('reads the whole text once and lowers the weighted error when importance is uneven', async () => {
    const [out, plain] = [join(directory, 'a.moe'), join(directory, 'plain.moe')];
    const engine = new CountingEngine();
    await convertCalibrated(options(out, engine));
    await convert({ source, out: plain, bits: 4, threads: 1 });
    expect(engine.prompts.map((ids) => ids.length)).toEqual([256, 256, 256, 256, 256, 20]);
    expect(engine.isClosed).toBe(true);
    const { manifest } = await verifyMoe(out);
    expect(manifest.calibration).toEqual({ tokens: 1300, text: 'sample.txt' });
    expect(await errorOfImportant(out)).toBeLessThan(0.9 * (await errorOfImportant(plain)));
    expect(readdirSync(directory).filter((name) => name.includes('uncalibrated'))).toEqual([]);
  });

  it('keeps the first pass and its importance when the second pass fails', async () => {
    const out = join(directory, 'b.moe');
    const disk = { freeBytes: async () => (existsSync(`${out}.partial`) ? 0 : 1e12), write: realWrite };
    const first = new CountingEngine();
    await expect(convertCalibrated({ ...options(out, first), disk })).rejects.toMatchObject({ code: 'DISK_FULL' });
    const second = new CountingEngine();
    await convertCalibrated(options(out, second));
    expect(first.prompts.length).toBe(6);
    expect(second.prompts.length).toBe(0);
    await verifyMoe(out);
  });

  it('closes the engine and leaves the first pass when the engine fails', async () => {
    const out = join(directory, 'c.moe');
    const engine = new CountingEngine();
    engine.importance = async () => {
      throw new Error('lost');
    };
    await expect(convertCalibrated(options(out, engine))).rejects.toThrow('lost');
    expect(engine.isClosed).toBe(true);
    expect(existsSync(out)).toBe(false);
  });

  it('refuses an empty text, a missing text and an output that exists before any work', async () => {
    const empty = join(directory, 'empty.txt');
    writeFileSync(empty, ' \n');
    const out = join(directory, 'd.moe');
    const run = (changed: Partial<CalibratedConvertOptions>) =>
      convertCalibrated({ ...options(out, new CountingEngine()), ...changed });
    await expect(run({ textPath: empty })).rejects.toMatchObject({ code: 'INVALID_CONFIG' });
    await expect(run({ textPath: join(directory, 'none.txt') })).rejects.toMatchObject({ code: 'INVALID_CONFIG' });
    await expect(run({ out: source })).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
    expect(readdirSync(directory).filter((name) => name.startsWith('d.moe'))).toEqual([]);
  });
});

const realWrite: NonNullable<CalibratedConvertOptions['disk']>['write'] = async (file, bytes, position) => {
  await file.write(bytes, 0, bytes.length, position);
};

/** Squared error of the columns of gate and up that the engine finds important, over all experts. */
async function errorOfImportant(path: string): Promise<number> {
  const { manifest, expertsPath, expertOffset } = await openMoe(path);
  const bytes = readFileSync(expertsPath);
  let error = 0;
  model.experts.forEach((experts, layer) => {
    experts.forEach(({ gate }, expert) => {
      const record = bytes.subarray(expertOffset(layer, expert));
      const found = [0, 1, 2].map(() => new Float32Array(hiddenSize * expertSize));
      loadAddon().dequantiseExpert(record, hiddenSize, expertSize, manifest.tables, 4, found[0]!, found[1]!, found[2]!);
      gate.values.forEach((value, i) => {
        if (i % hiddenSize < hiddenSize / 8) error += (found[0]![i]! - value) ** 2;
      });
    });
  });
  return error;
}
