// `proclock prune`: namespaces that nobody is attached to. A process that enters one at this very moment finds either the
// namespace, which then stays, or that it is gone, and makes a new one: native/platform/memory.cc.
import { prune as pruneSegment, segmentsOfUser } from '../shm/admin';
import { complain } from './text';
import { Exit, lineOf, parse, UsageError } from './usage';

/** @returns the exit code */
export function prune(args: string[]): number {
  const { names, values } = parse(args, { 'dry-run': { type: 'boolean' } });
  if (names.length > 0) throw new UsageError(`prune takes no names: ${names[0]}`);
  let failed = false;
  for (const segment of segmentsOfUser()) {
    try {
      if (pruneSegment(segment, values['dry-run'] !== true)) process.stdout.write(`${segment.file}\n`);
    } catch (error) {
      failed = true;
      complain(lineOf(error));
    }
  }
  return failed ? Exit.FAILED : Exit.OK;
}
