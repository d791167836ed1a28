/** The threads that quantise: a pool of piscina around worker.ts. */
import { Piscina } from 'piscina';
import { type ErrorCode, MoestroError } from '../../errors.js';
import { workerFile } from '../../worker-file.js';
import { type QuantiseDone, type QuantiseJob, type QuantiseResult, transferList } from './job.js';

export interface QuantisePool {
  /** Moves the job's buffers to a thread. Rejects with the native error, as MoestroError. */
  run(job: QuantiseJob): Promise<QuantiseDone>;
  close(): Promise<void>;
}

export function openQuantisePool(threads: number): QuantisePool {
  const pool = new Piscina({
    filename: workerFile(import.meta.url, './worker.js'),
    name: 'quantise',
    minThreads: 1,
    maxThreads: threads,
    idleTimeout: 10_000,
    // The jobs are data only: an outer test runner's flags mean nothing to the threads.
    execArgv: [],
  });
  return {
    async run(job) {
      const result = (await pool.run(job, { transferList: transferList(job) })) as QuantiseResult;
      if (!result.ok) throw new MoestroError(result.code as ErrorCode, result.message);
      return result;
    },
    close: () => pool.destroy(),
  };
}
