// Converts SOURCE to OUT and kills itself with SIGKILL once WEIGHTS weights are done: what a crash leaves behind.
import { convert } from '../../dist/model/convert.js';

const [source, out, weights] = process.argv.slice(2);
await convert({
  source,
  out,
  threads: 2,
  ledgerEveryBytes: 64 << 10,
  onProgress: ({ doneWeights }) => {
    if (doneWeights >= Number(weights)) process.kill(process.pid, 'SIGKILL');
  },
});
