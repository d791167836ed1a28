/** `moestro serve [MODEL]`: the HTTP server over one model. */
import closeWithGrace from 'close-with-grace';
import { Argument, Command } from 'commander';
import type { FastifyInstance } from 'fastify';
import { engineConfig, type ServerConfig, samplingConfig, serverConfig } from '../config.js';
import { MoestroError } from '../errors.js';
import type { ServedModel } from '../http/deps.js';
import { createServer } from '../http/server.js';
import { ServerMetrics } from '../metrics/server-metrics.js';
import { type OpenModel, openModel } from '../open-model.js';
import { ENGINE_SETTINGS, SAMPLING_SETTINGS, SERVER_SETTINGS } from '../settings.js';
import { VERSION } from '../version.js';
import { banner } from './banner.js';
import { BUNDLED_MODEL } from './bundled.js';
import { keepTold, readBudget } from './live-budget.js';
import { addSettings, givenSettings } from './options.js';

/** A server leaves the length of answers to its requests. */
const DRAWING = SAMPLING_SETTINGS.filter(({ key }) => key !== 'maxTokens');

/** How long answers under way may go on after the signal to stop. */
const GRACE_MS = 10_000;

export function serveCommand(): Command {
  const command = new Command('serve')
    .description('Answers HTTP requests as the OpenAI API does: /v1/chat/completions, /v1/completions, /v1/models.')
    .addArgument(new Argument('[model]', 'a .moe directory').default(BUNDLED_MODEL, 'the bundled model'));
  addSettings(command, [...SERVER_SETTINGS, ...ENGINE_SETTINGS, ...DRAWING]);
  command.addHelpText(
    'after',
    '\nExamples:\n  moestro serve\n  moestro serve my-model.moe --budget 8GiB --port 9000\n  MOESTRO_API_KEY=secret moestro serve my-model.moe --host 0.0.0.0',
  );
  return command.action((model: string, options: Record<string, string>) => serve(model, options));
}

async function serve(modelPath: string, options: Record<string, string>): Promise<void> {
  const config = engineConfig(modelPath, givenSettings(options, ENGINE_SETTINGS));
  const server = serverConfig(givenSettings(options, SERVER_SETTINGS));
  const { sampling } = samplingConfig(givenSettings(options, DRAWING));

  let served: ServedModel | null = null;
  let opened: OpenModel | undefined;
  const told = () => engineConfig(modelPath, givenSettings(options, ENGINE_SETTINGS)).budgetBytes;
  const deps = {
    config: server,
    model: () => served,
    metrics: new ServerMetrics(),
    readBudget: (text: string) => readBudget(text, told),
  };
  const app = await createServer(deps);
  // Before the model: a taken port is told at once, and clients that come early are told to wait.
  const address = await listen(app, server);
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
  try {
    opened = await openModel(config, sampling);
  } catch (error) {
    stopped.uninstall();
    await app.close();
    throw error;
  }
  const { generator } = opened;
  served = { id: generator.info.modelName, createdSeconds: Math.floor(Date.now() / 1000), generator };
  process.stdout.write(
    banner({ info: generator.info, version: VERSION, address, needsKey: server.apiKeys.length > 0 }),
  );
  keepTold(generator, deps.readBudget);
}

/** The address as a client writes it. Throws PORT_IN_USE, INVALID_CONFIG. */
async function listen(app: FastifyInstance, { host, port }: ServerConfig): Promise<string> {
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
      throw new MoestroError('INVALID_CONFIG', `Cannot listen on --host "${host}": ${code}, ${needed}`, {}, error);
    }
    throw error;
  }
}
