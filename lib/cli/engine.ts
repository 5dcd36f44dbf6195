// Locks beyond this machine, as options of a command.
import type { Space } from '../remote';
import { type OptionConfigs, UsageError, usageOf, type Values } from './usage';

export const ENGINE_OPTIONS: OptionConfigs = { postgres: { type: 'string' }, etcd: { type: 'string' } };

type Connect = (where: string | string[], options: { namespace?: string }) => Promise<Space>;

/** The space that is meant; `undefined`: this machine's memory. */
export async function spaceOf({ etcd, namespace, postgres }: Values): Promise<Space | undefined> {
  if (etcd !== undefined && postgres !== undefined)
    throw new UsageError('--postgres and --etcd can not be used together');
  const options = typeof namespace === 'string' ? { namespace } : {};
  try {
    if (typeof postgres === 'string') return await connectOf('postgres')(postgres, options);
    if (typeof etcd === 'string') return await connectOf('etcd')(etcd.split(','), options);
  } catch (error) {
    throw usageOf(error);
  }
  return undefined;
}

function connectOf(engine: 'postgres' | 'etcd'): Connect {
  return (require(`../${engine}.js`) as { connect: Connect }).connect;
}
