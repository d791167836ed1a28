#!/usr/bin/env node
/** `moestro COMMAND`: loads the file of the one command that was asked for, so that the others cost no memory. */
import './v8-flags.js';
import { Command, CommanderError } from 'commander';
import { MoestroError } from '../errors.js';
import { VERSION } from '../version.js';
import { fail } from './fail.js';

interface LazyCommand {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<Command>;
}

const COMMANDS: readonly LazyCommand[] = [
  {
    name: 'serve',
    summary: 'answer HTTP requests, OpenAI-compatible; the bundled model when none is named',
    load: async () => (await import('./serve.js')).serveCommand(),
  },
  {
    name: 'config',
    summary: 'show which settings are in force and why, or check a configuration file',
    load: async () => (await import('./config.js')).configCommand(),
  },
  {
    name: 'chat',
    summary: 'talk to a model, or answer one prompt',
    load: async () => (await import('./chat.js')).chatCommand(),
  },
  {
    name: 'convert',
    summary: 'make a .moe directory from a Hugging Face directory or a GGUF file',
    load: async () => (await import('./convert.js')).convertCommand(),
  },
  {
    name: 'calibrate',
    summary: 'measure how much each layer minds fewer bits, for --mode routed',
    load: async () => (await import('./calibrate.js')).calibrateCommand(),
  },
  {
    name: 'inspect',
    summary: 'show what is in a .moe directory and check its bytes',
    load: async () => (await import('./inspect.js')).inspectCommand(),
  },
  {
    name: 'eval',
    summary: 'measure perplexity, accuracy and distance to a reference',
    load: async () => (await import('./eval.js')).evalCommand(),
  },
  {
    name: 'bench',
    summary: 'measure tokens per second, reads and memory',
    load: async () => (await import('./bench.js')).benchCommand(),
  },
  {
    name: 'load',
    summary: 'drive a server with many streams and measure how it feels to them',
    load: async () => (await import('./load.js')).loadCommand(),
  },
  {
    name: 'plan',
    summary: 'show where the memory of a budget goes and predict tokens per second',
    load: async () => (await import('./plan.js')).planCommand(),
  },
  {
    name: 'replay',
    summary: 'run recorded routing through residency policies and a model of the disk',
    load: async () => (await import('./replay.js')).replayCommand(),
  },
];

/** Exit status of a mistyped command line, as for every mistake of the caller. */
const USAGE_EXIT = 2;

async function main(argv: readonly string[]): Promise<number> {
  const program = new Command('moestro')
    .description('Serves Mixture-of-Experts models larger than the memory they may use.')
    .version(VERSION)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'moestro: ')) })
    .showHelpAfterError('  hint: moestro --help, or moestro COMMAND --help')
    .addHelpText('after', '\nEach command says more with --help, for instance: moestro serve --help');
  // `moestro help NAME` needs the options of NAME too.
  const wanted = argv[0] === 'help' ? argv[1] : argv[0];
  for (const { name, summary, load } of COMMANDS) {
    if (name === wanted) {
      const command = (await load()).copyInheritedSettings(program).summary(summary);
      for (const part of command.commands) part.copyInheritedSettings(command);
      program.addCommand(command);
    } else {
      program.command(name).summary(summary).description(summary);
    }
  }
  try {
    if (argv.length === 0) program.outputHelp();
    else await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_EXIT;
    return fail(error);
  }
}

// A reader that has seen enough (`moestro chat ... | head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  const message = `Cannot write to standard output: ${error.message}`;
  process.exit(fail(new MoestroError('IO_ERROR', message, {}, error)));
});
// Progress and remarks that nobody reads any more end nothing.
process.stderr.on('error', () => undefined);
process.exitCode = await main(process.argv.slice(2)).catch(fail);
