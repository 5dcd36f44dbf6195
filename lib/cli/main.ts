#!/usr/bin/env node
// `proclock`: finds the command that was typed, and ends with its exit code. Each is loaded when it is wanted: `run` has to
// start at once.
import { GENERAL, HELP } from './help';
import { complain } from './text';
import { Exit, exitOf, lineOf, UsageError } from './usage';

type Command = (args: string[]) => number | Promise<number>;

const COMMANDS: Record<string, () => Command> = {
  run: () => (require('./run') as typeof import('./run')).run,
  ls: () => (require('./ls') as typeof import('./ls')).ls,
  watch: () => (require('./watch') as typeof import('./watch')).watch,
  doctor: () => (require('./doctor') as typeof import('./doctor')).doctor,
  prune: () => (require('./prune') as typeof import('./prune')).prune,
};

function help(args: string[]): number {
  const [command] = args;
  if (command === undefined) process.stdout.write(GENERAL);
  else if (Object.hasOwn(HELP, command)) process.stdout.write(HELP[command] as string);
  else throw new UsageError(`there is no command ${JSON.stringify(command)}: proclock help`);
  return Exit.OK;
}

function version(): number {
  const { version: number } = require('../../package.json') as { version: string };
  process.stdout.write(`${number}\n`);
  return Exit.OK;
}

/** Whoever read what is printed has gone, or it can not be written. */
function endWithOutput(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(Exit.OK);
  complain(lineOf(error));
  process.exit(Exit.INTERNAL);
}

async function main([command, ...args]: string[]): Promise<number> {
  // Standard output is that of the command, where one is run. For a SIGUSR1 that nobody listens to, Node.js would open its
  // debugger: one that comes from here on is told to `run`, which listens before the event loop turns.
  if (command === 'run') process.on('SIGUSR1', () => {});
  else process.stdout.on('error', endWithOutput);
  if (command === undefined) throw new UsageError('no command was given: proclock help');
  if (command === 'help' || command === '--help' || command === '-h') return help(args);
  if (command === '--version') return version();
  const load = Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
  if (load === undefined)
    throw new UsageError(`there is no command ${JSON.stringify(command)}: proclock help`);
  // What stands behind the name of a lock belongs to what is run.
  if (args[0] === '--help' || args[0] === '-h') return help([command]);
  return load()(args);
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error) => {
    process.exitCode = exitOf(error);
    complain(lineOf(error));
  },
);
