/**
 * Whatever is drawn in the format of a schema validates. MOESTRO_SCHEMAS sets how many schemas are drawn: 500 is the bar of
 * docs/constrained.md.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { describe, expect, it } from 'vitest';
import { compileFormat } from '../../src/constrain/format.js';
import { Formats } from '../../src/constrain/matcher.js';
import { drawText } from '../helpers/drawn-text.js';
import { randomSchema } from '../helpers/random-schema.js';
import { randomVocabulary } from '../helpers/random-vocabulary.js';

const SCHEMAS = Number(process.env.MOESTRO_SCHEMAS ?? 100);
const TEXTS_EACH = 3;

/** Every value of some lists is out: these schemas have no value at all, and are refused. */
const hasNoValue = (error: unknown): boolean => /a format that no text can have/.test(String(error));

describe('compileFormat()', () => {
  it(`writes only valid JSON for ${SCHEMAS} drawn schemas`, { timeout: 600_000 }, () => {
    const formats = new Formats(randomVocabulary(3_000, 1));
    let whole = 0;
    let empty = 0;
    for (let seed = 0; seed < SCHEMAS; ++seed) {
      const schema = randomSchema(seed);
      const ajv = new Ajv2020({ strict: false, allErrors: true });
      addFormats.default(ajv);
      const validate = ajv.compile(schema);
      let program: ReturnType<typeof compileFormat>;
      try {
        program = compileFormat({ kind: 'json_schema', schema }, null);
      } catch (error) {
        if (!hasNoValue(error)) throw error;
        empty++;
        continue;
      }
      for (let i = 0; i < TEXTS_EACH; ++i) {
        const { text, isWhole } = drawText(formats, program, seed * TEXTS_EACH + i, { tokensMax: 600 });
        if (!isWhole) continue;
        whole++;
        const isValid = validate(JSON.parse(text));
        const found = JSON.stringify({ seed, i, schema, text, errors: validate.errors });
        if (!isValid) expect.fail(found);
      }
    }
    expect(empty).toBeLessThan(SCHEMAS / 10);
    expect(whole).toBeGreaterThan(SCHEMAS * TEXTS_EACH * 0.8);
  });
});
