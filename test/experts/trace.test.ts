import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mapRecording, type Recording, readRecording } from '../../src/experts/trace.js';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

const HEADER = 'turn,phase,step,layer,slot,expert,weight,residency,expert_bytes';

/** Two tokens of two layers at top-3, in ascending order. */
const LINES = '{"tok":1,"layers":[[0,2,5],[1,3,4]]}\n{"tok":2,"layers":[[0,1,5],[2,3,7]]}\n';

function routing(recording: Recording, model: { layers: number; experts: number; topK: number }, tokens: number) {
  const trace = mapRecording(recording, model, 'x');
  const ids = new Uint16Array(tokens * model.topK);
  const weights = new Float32Array(tokens * model.topK);
  return (step: number, layer: number) => {
    trace.routingFor(step, layer, tokens, ids, weights);
    return { ids: [...ids], weights: [...weights] };
  };
}

describe('readRecording()', () => {
  it('readRecording() reads JSON lines as unranked ids without weights', () => {
    const recording = readRecording('a.jsonl', bytesOf(LINES));
    expect(recording).toMatchObject({ tokens: 2, layers: 2, topK: 3, weights: null, isRanked: false });
    expect([...recording.ids]).toEqual([0, 2, 5, 1, 3, 4, 0, 1, 5, 2, 3, 7]);
  });

  it('readRecording() reads CSV by weight and leaves out tokens of which a layer is missing', () => {
    const rows = [
      '# made on a phone',
      HEADER,
      '0,0,0,0,0,7,0.25,0,10',
      '0,0,0,0,1,3,0.75,0,10',
      '0,0,0,1,0,1,0.5,0,10',
      '0,0,0,1,1,2,0.5,0,10',
      '0,0,1,0,0,9,1,0,10',
      '0,0,1,0,1,4,0,0,10',
    ];
    const recording = readRecording('a.csv', bytesOf(rows.join('\n')));
    expect(recording).toMatchObject({ tokens: 1, layers: 2, topK: 2, isRanked: true });
    expect([...recording.ids]).toEqual([3, 7, 1, 2]);
    expect([...recording.weights!]).toEqual([0.75, 0.25, 0.5, 0.5]);
  });

  it('readRecording() reads raw bytes as 48 layers of 8', () => {
    const bytes = Uint8Array.from({ length: 2 * 384 }, (_, i) => i % 128);
    expect(readRecording('a.u8', bytes)).toMatchObject({ tokens: 2, layers: 48, topK: 8, isRanked: true });
  });

  it.each([
    ['a.txt', '', 'its name does not end in .jsonl, .csv, .u8 or .moetrace'],
    ['a.jsonl', '', 'it holds no token'],
    ['a.jsonl', '{', 'line 1 is not JSON'],
    ['a.jsonl', 'null', 'line 1 has no layers'],
    ['a.jsonl', '{"layers":[]}', 'it has 0 layers of 0 experts'],
    ['a.jsonl', '{"layers":[[1,2]]}\n{"layers":[[1]]}', 'line 2 is not 1 layers of 2 experts'],
    ['a.jsonl', '{"layers":[[1,-2]]}', 'line 1 names expert -2'],
    ['a.jsonl', '{"layers":[[1,1.5]]}', 'line 1 names expert 1.5'],
    ['a.jsonl', '{"layers":[[1,65536]]}', 'line 1 names expert 65536'],
    ['a.jsonl', '{"layers":[[1,"x"]]}', 'line 1 names expert "x"'],
    ['a.jsonl', '{"layers":[[4,4]]}', 'line 1 names an expert twice'],
    ['a.csv', '', 'it has 0 layers of 0 experts'],
    ['a.csv', 'layer,expert', 'its header is "layer,expert"'],
    ['a.csv', `${HEADER}\n0,0,0,1e9,0,1,0.5`, 'line 2 has "1e9" where a number from 0 to 1023 belongs'],
    ['a.csv', `${HEADER}\n0,0,0,0,99,1,0.5`, 'line 2 has "99" where a number from 0 to 63 belongs'],
    ['a.csv', `${HEADER}\n0,0,0,0,0,1,nan`, 'line 2 has weight "nan"'],
    ['a.csv', `${HEADER}\n0,0,0,0,0,1,1\n0,0,0,0,0,2,1`, 'line 3 repeats slot 0 of layer 0'],
    ['a.csv', `${HEADER}\n0,0,0,1,0,1,1`, 'it holds no token with every layer'],
    ['a.u8', '', 'it has 0 bytes'],
    ['a.u8', 'abc', 'it has 3 bytes, not a multiple of 384'],
  ])('readRecording() refuses %s holding %j', (path, text, message) => {
    expect(() => readRecording(path, bytesOf(text))).toThrow(`Cannot use routing trace "${path}": ${message}`);
  });

  it('readRecording() reads raw bytes in the geometry it is told, and refuses what is not of it', () => {
    const bytes = Uint8Array.of(0, 59, 3, 4, 1, 2, 5, 6);
    const told = { layers: 2, experts: 60, topK: 2 };
    expect(readRecording('a.u8', bytes, told)).toMatchObject({ tokens: 2, layers: 2, topK: 2, isRanked: true });
    expect(() => readRecording('a.u8', bytes, { ...told, experts: 59 })).toThrow(
      'byte 1 is 59, not an expert below 59',
    );
    expect(() => readRecording('a.u8', bytes, { ...told, layers: 3 })).toThrow(
      '8 bytes, not a multiple of 6 (3 layers',
    );
    expect(() => readRecording('a.u8', Uint8Array.of(1, 1), { ...told, layers: 1 })).toThrow('name an expert twice');
    expect(() => readRecording('a.u8', bytes, { ...told, experts: 300 })).toThrow('its ids are bytes');
    expect(() => readRecording('a.jsonl', bytesOf(LINES), { layers: 3 })).toThrow(
      '2 layers of 3 experts a token, not 3',
    );
    expect(() => readRecording('a.jsonl', bytesOf(LINES), { experts: 7 })).toThrow('names expert 7, not one below 7');
  });

  it('readRecording() refuses raw bytes that name an expert beyond 127', () => {
    expect(() => readRecording('a.u8', new Uint8Array(384).fill(200))).toThrow('byte 0 is 200');
  });
});

describe('mapRecording()', () => {
  const recording = readRecording('a.jsonl', bytesOf(LINES));

  it('mapRecording() takes layers and steps modulo the recording', () => {
    const at = routing(recording, { layers: 5, experts: 8, topK: 3 }, 1);
    expect(at(0, 4)).toEqual(at(0, 0));
    expect(at(2, 1)).toEqual(at(0, 1));
    expect([...at(0, 0).ids].sort()).toEqual([0, 2, 5]);
    expect([...at(1, 1).ids].sort()).toEqual([2, 3, 7]);
    // Several tokens are consecutive ones, across the end of the recording too.
    const two = routing(recording, { layers: 2, experts: 8, topK: 3 }, 2);
    expect(two(1, 0).ids).toEqual([...at(1, 0).ids, ...at(0, 0).ids]);
  });

  it('mapRecording() fills a larger top-k from the next tokens, then from the lowest ids', () => {
    const at = routing(recording, { layers: 2, experts: 8, topK: 6 }, 1);
    expect([...at(0, 0).ids.slice(0, 3)].sort()).toEqual([0, 2, 5]);
    expect(at(0, 0).ids.slice(3)).toEqual([1, 3, 4]);
  });

  it('mapRecording() cuts known weights to the best ranks and makes them sum to one', () => {
    const rows = [HEADER, '0,0,0,0,0,7,0.2', '0,0,0,0,1,3,0.5', '0,0,0,0,2,1,0.3'];
    const at = routing(readRecording('a.csv', bytesOf(rows.join('\n'))), { layers: 1, experts: 8, topK: 2 }, 1);
    expect(at(0, 0).ids).toEqual([3, 1]);
    expect(at(0, 0).weights[0]).toBeCloseTo(0.625, 6);
    expect(at(0, 0).weights[1]).toBeCloseTo(0.375, 6);
  });

  it('mapRecording() refuses experts that the model does not have', () => {
    expect(() => mapRecording(recording, { layers: 2, experts: 6, topK: 2 }, 'x')).toThrow(
      'it names expert 7, and the model has experts 0 to 5',
    );
  });

  it('routingFor() gives distinct experts and descending weights summing to one, whatever the geometry', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 0, max: 9 }),
        fc.integer({ min: 0, max: 50 }),
        (topK, layer, step) => {
          const { ids, weights } = routing(recording, { layers: 10, experts: 12, topK }, 1)(step, layer);
          expect(new Set(ids).size).toBe(topK);
          expect(Math.max(...ids)).toBeLessThan(12);
          expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 5);
          for (let rank = 1; rank < topK; ++rank) expect(weights[rank]!).toBeLessThanOrEqual(weights[rank - 1]!);
        },
      ),
    );
  });
});
