/** `moestro serve [MODEL]`: the HTTP server over one model. */
import { closeSync, openSync } from 'node:fs';
import closeWithGrace from 'close-with-grace';
import { Argument, Command } from 'commander';
import type { FastifyInstance } from 'fastify';
import type { ServerConfig } from '../config.js';
import { MoestroError } from '../errors.js';
import type { ServedModel, ServerDeps } from '../http/deps.js';
import { createServer } from '../http/server.js';
import { ServerMetrics } from '../metrics/server-metrics.js';
import { type OpenModel, openModel } from '../open-model.js';
import { VERSION } from '../version.js';
import { banner } from './banner.js';
import { keepTold, readBudget } from './live-budget.js';
import { addSettings } from './options.js';
import { LiveConfig, readServeConfig, SERVE_SETTINGS, type ServeOptions } from './serve-config.js';

const HOST_SETTING = SERVE_SETTINGS.find(({ key }) => key === 'host')!;

/** How long answers under way may go on after the signal to stop. */
const GRACE_MS = 10_000;

export function serveCommand(): Command {
  const command = new Command('serve')
    .description('Answers HTTP requests as the OpenAI API does: /v1/chat/completions, /v1/completions, /v1/models.')
    .addArgument(new Argument('[model]', 'a .moe directory (default: the bundled model)'));
  addSettings(command, SERVE_SETTINGS);
  command.addHelpText(
    'after',
    '\nExamples:\n  moestro serve\n  moestro serve my-model.moe --budget 8GiB --port 9000\n  moestro serve --config moestro.yaml\n  MOESTRO_API_KEY=secret moestro serve my-model.moe --host 0.0.0.0',
  );
  return command.action((model: string | undefined, options: ServeOptions) => serve(model, options));
}

async function serve(model: string | undefined, options: ServeOptions): Promise<void> {
  const read = () => readServeConfig(model, options);
  const live = new LiveConfig(await read(), read);
  const { engine: config, server, sampling } = live.current;

  let served: ServedModel | null = null;
  let opened: OpenModel | undefined;
  const deps: ServerDeps = {
    get config() {
      return live.current.server;
    },
    model: () => served,
    metrics: new ServerMetrics(),
    readBudget: (text) => readBudget(text, () => live.current.engine.budgetBytes),
  };
  const app = await createServer(deps);
  // Before the model: a taken port is told at once, and clients that come early are told to wait.
  const address = await listen(app, server, live.current.found.get(HOST_SETTING)!.name);
  const stopped = closeWithGrace(
    { delay: GRACE_MS, logger: false, skip: ['uncaughtException', 'unhandledRejection', 'SIGHUP'] },
    async () => {
      process.stderr.write('moestro: stopping\n');
      // What still runs after half of the time ends with an error that its client can read.
      setTimeout(() => void opened?.close(), GRACE_MS / 2).unref();
      await app.close();
      await opened?.close();
    },
  );
  const hasTerminal = process.stdout.isTTY;
  process.on('SIGHUP', () => {
    if (hasTerminal && !isTerminalThere()) stopped.close();
    else void live.reload().then((text) => process.stderr.write(`moestro: ${text}\n`));
  });
  try {
    opened = await openModel(config, sampling);
  } catch (error) {
    stopped.uninstall();
    await app.close();
    throw error;
  }
  const { generator } = opened;
  generator.defaults = live.current.sampling;
  live.onReload(async (next) => {
    // First what may be refused: then nothing else has changed.
    await generator.memory(readBudget('auto', () => next.engine.budgetBytes));
    generator.defaults = next.sampling;
  });
  served = { id: generator.info.modelName, createdSeconds: Math.floor(Date.now() / 1000), generator };
  process.stdout.write(
    banner({ info: generator.info, version: VERSION, address, needsKey: server.apiKeys.length > 0 }),
  );
  keepTold(generator);
}

/** The signal to read the configuration again is also the one of a terminal that was closed: then the server stops. */
function isTerminalThere(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false; // ENXIO: it has hung up
  }
}

/** The address as a client writes it. Throws PORT_IN_USE, INVALID_CONFIG. */
async function listen(app: FastifyInstance, { host, port }: ServerConfig, nameOfHost: string): Promise<string> {
  try {
    return await app.listen({ host, port });
  } catch (error) {
    await app.close();
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EADDRINUSE') {
      throw new MoestroError('PORT_IN_USE', `Cannot listen on ${host}:${port}: the port is taken, needed a free one`, {
        host,
        port,
      });
    }
    if (code === 'EACCES') {
      const needed = 'needed a port above 1023, or the right to use this one';
      throw new MoestroError('INVALID_CONFIG', `Cannot listen on ${host}:${port}: not allowed, ${needed}`, {}, error);
    }
    if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
      const needed = 'needed an address of this machine, such as 127.0.0.1 or 0.0.0.0';
      throw new MoestroError('INVALID_CONFIG', `Cannot use ${nameOfHost} "${host}": ${code}, ${needed}`, {}, error);
    }
    throw error;
  }
}
