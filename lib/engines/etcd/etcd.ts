import type { Engine, Session, SessionEvents } from '../../remote/engine';
import { EngineSpace, type Space } from '../../remote/space';
import { checkSettings, type EtcdOptions, type Settings } from './config';
import { EtcdSession } from './session';

class EtcdEngine implements Engine {
  readonly kind = 'etcd';
  readonly namespace: string;
  readonly origin: string;

  constructor(private readonly settings: Settings) {
    this.namespace = settings.namespace;
    this.origin = JSON.stringify([
      settings.endpoints.map((endpoint) => JSON.stringify(endpoint)).sort(),
      settings.prefix,
    ]);
  }

  open(events: SessionEvents): Promise<Session> {
    return EtcdSession.open(this.settings, events);
  }
}

/**
 * A space over etcd (3.4 or newer), by the package `@grpc/grpc-js`, which has to be installed beside this one. All programs
 * that use the same cluster, `prefix` and `namespace` share the locks. The space has one connection at a time, to one of the
 * members.
 *
 * @param endpoints `host:port`, `http://host:port` or `https://host:port`: those of several members are for failover
 * @example
 * ```ts
 * await using space = await connect(['https://etcd-1:2379', 'https://etcd-2:2379', 'https://etcd-3:2379']);
 * const lock = new Lock('ledger', { space });
 * await lock.acquire(async ({ token, lost }) => {
 *   await work({ token, signal: lost });
 * });
 * ```
 * @throws {LockError} `ERR_LOCK_UNAVAILABLE` if no endpoint can be reached, or there is no quorum; `ERR_LOCK_UNSUPPORTED` if
 * etcd is too old, or `@grpc/grpc-js` is not installed; `ERR_LOCK_PERMISSION`
 * @throws {TypeError} `ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE`
 * @throws {RangeError} `ERR_OUT_OF_RANGE`
 */
export async function connect(endpoints: string | string[], options: EtcdOptions = {}): Promise<Space> {
  const space = new EngineSpace(new EtcdEngine(checkSettings(endpoints, options)));
  await space.connect();
  return space;
}
