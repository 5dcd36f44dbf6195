import type { CommandName, PlainError } from './party';

/** See performer.js. */
export function createPerformer(of: {
  proclock: object;
  lockOptions(args: { namespace?: string; fair?: boolean }): object;
}): (command: CommandName, args: object) => Promise<{ result: unknown } | { error: PlainError }>;
export function errorOf(error: unknown): PlainError;
