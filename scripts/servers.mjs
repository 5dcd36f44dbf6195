// Servers of engines for scripts: those that the tests start. Each ends with this process, or when it is stopped.
import { testCode } from './test-code.mjs';

/** By the name of the entry: `{ name, target, stop, server }`, or `undefined` where none can be had. */
export const servers = {
  async postgres(settings = {}) {
    const { isThere, PostgresServer } = testCode('engines/postgres/server.ts');
    if (!isThere) return undefined;
    const server = await PostgresServer.start(settings);
    const [{ version }] = await server.sql("select split_part(version(), ' ', 2) as version");
    return { name: `PostgreSQL ${version}`, target: server.url(), stop: () => server.stop(), server };
  },

  async etcd() {
    const { isThere, EtcdCluster } = testCode('engines/etcd/server.ts');
    if (!isThere) return undefined;
    const server = await EtcdCluster.start();
    const version = await server.version();
    return { name: `etcd ${version}`, target: server.endpoints[0], stop: () => server.stop(), server };
  },
};
