/** `moestro serve [MODEL]`: the HTTP server over one model, or over several that take turns. */
import { closeSync, openSync } from 'node:fs';
import closeWithGrace from 'close-with-grace';
import { Argument, Command } from 'commander';
import type { FastifyInstance } from 'fastify';
import type { ServerConfig } from '../config.js';
import { MoestroError } from '../errors.js';
import type { ServerDeps } from '../http/deps.js';
import { ModelShelf, type ServedModel } from '../http/model-shelf.js';
import { createServer } from '../http/server.js';
import { ServerMetrics } from '../metrics/server-metrics.js';
import { openMoe } from '../model/read-moe.js';
import { openModel } from '../open-model.js';
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
  const { engine: config, server } = live.current;

  const shelf = await shelfOf(config.modelPath, live);
  const deps: ServerDeps = {
    get config() {
      return live.current.server;
    },
    models: shelf,
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
      setTimeout(() => void shelf.close(), GRACE_MS / 2).unref();
      await app.close();
      await shelf.close();
    },
  );
  const hasTerminal = process.stdout.isTTY;
  process.on('SIGHUP', () => {
    if (hasTerminal && !isTerminalThere()) stopped.close();
    else void live.reload().then((text) => process.stderr.write(`moestro: ${text}\n`));
  });
  let first: ServedModel;
  try {
    first = await shelf.start();
  } catch (error) {
    stopped.uninstall();
    await app.close();
    throw error;
  }
  live.onReload(async (next) => {
    const generator = shelf.current()?.generator;
    if (generator === undefined) return;
    // First what may be refused: then nothing else has changed.
    await generator.memory(readBudget('auto', () => next.engine.budgetBytes));
    generator.defaults = next.sampling;
  });
  const others = shelf.entries.slice(1).map(({ id }) => id);
  const needsKey = server.apiKeys.length > 0;
  process.stdout.write(banner({ info: first.generator.info, version: VERSION, address, needsKey, others }));
}

/** All models that are served, the first one first. Throws INVALID_CONFIG and what `openMoe` throws. */
async function shelfOf(firstPath: string, live: LiveConfig): Promise<ModelShelf> {
  const paths = new Map<string, string>();
  for (const path of [firstPath, ...live.current.server.moreModels]) {
    const { name } = (await openMoe(path)).manifest;
    const other = paths.get(name);
    if (other !== undefined) {
      throw new MoestroError(
        'INVALID_CONFIG',
        `Cannot serve "${path}" beside "${other}": both are called "${name}", needed models with names of their own`,
      );
    }
    paths.set(name, path);
  }
  const createdSeconds = Math.floor(Date.now() / 1000);
  return new ModelShelf({
    entries: [...paths.keys()].map((id) => ({ id, createdSeconds })),
    waitingMax: live.current.engine.maxQueued,
    open: async ({ id }) => {
      if (paths.size > 1) process.stderr.write(`moestro: loading ${id}\n`);
      // What was reloaded meanwhile counts.
      const { engine } = live.current;
      const opened = await openModel({ ...engine, modelPath: paths.get(id)! }, live.current.sampling);
      opened.generator.defaults = live.current.sampling;
      keepTold(opened.generator);
      return opened;
    },
  });
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
