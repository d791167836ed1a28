/** One measurement of the tables of levels: a model, or the source it came from, over a text and questions. */
import { engineConfig } from '../src/config.js';
import { openEvaluated } from '../src/eval/open-evaluated.js';
import type { Question } from '../src/eval/questions.js';
import type { ReferenceReader } from '../src/eval/reference-file.js';
import { type EvalResult, runEval } from '../src/eval/run-eval.js';
import type { RawSettings } from '../src/settings/find.js';

export interface Measured {
  readonly prose: string;
  readonly questions: readonly Question[] | null;
  readonly context: number;
  readonly chunks: number;
}

/** Against `reference`, or, where it is the path of a file, saving what others are compared with there. */
export async function measure(
  path: string,
  settings: RawSettings,
  { prose, questions, context, chunks }: Measured,
  reference: ReferenceReader | string,
): Promise<EvalResult> {
  const model = await openEvaluated(engineConfig(path, settings, {}));
  const isSaved = typeof reference === 'string';
  try {
    return await runEval(model, {
      questions,
      prose,
      context,
      chunks,
      reference: isSaved ? null : reference,
      against: null,
      saveReference: isSaved ? reference : null,
      onProgress: () => {},
    });
  } finally {
    await model.evaluator.close();
  }
}
