import type { StepsHeader } from '../../src/experts/recorded-steps.js';

/** The first line of a recording of one layer of four experts, without guesses. */
export const TOY_STEPS_HEADER: StepsHeader = {
  format: 'moestro-routing',
  version: 2,
  model: 'toy',
  layers: 1,
  experts: 4,
  topK: 2,
  rows: 1,
  fullLevel: 2,
  levels: [2],
  bitBytes: 64,
  scaleBytes: 64,
  guesses: 0,
  guessTokens: 0,
};
