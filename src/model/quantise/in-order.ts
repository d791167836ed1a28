/**
 * Runs jobs side by side and takes their results in the order of the jobs, with a bound on how many are under way, so
 * that memory depends on the bound and never on the number of jobs.
 *
 * @param limit jobs started and not yet finished, at least 1.
 * @param start begins a job; may run while earlier ones do.
 * @param finish takes one result at a time, in order. The first error of either stops everything; what is under way
 * is waited for before it is thrown, so nothing writes afterwards.
 */
export async function runInOrder<Job, Result>(
  jobs: Iterable<Job>,
  limit: number,
  start: (job: Job) => Promise<Result>,
  finish: (result: Result, job: Job) => Promise<void>,
): Promise<void> {
  const underWay: { readonly job: Job; readonly result: Promise<Result> }[] = [];
  const finishFirst = async (): Promise<void> => {
    const first = underWay.shift()!;
    await finish(await first.result, first.job);
  };
  try {
    for (const job of jobs) {
      const result = start(job);
      result.catch(() => {}); // looked at in its turn, or below
      underWay.push({ job, result });
      if (underWay.length >= limit) await finishFirst();
    }
    while (underWay.length > 0) await finishFirst();
  } finally {
    await Promise.allSettled(underWay.map(({ result }) => result));
  }
}
