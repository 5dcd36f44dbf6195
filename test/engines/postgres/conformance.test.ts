// The conformance suite over PostgreSQL.
import { all } from '../cases';
import { conform } from '../stage';
import { engineOnPostgres } from './engine';
import { describeWithServer, PostgresServer } from './server';

describeWithServer('over a server of its own', () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(() => server.stop());

  conform(
    engineOnPostgres(() => server),
    all,
  );
});
