// The conformance suite over PostgreSQL.
import { all } from '../cases';
import { conform } from '../stage';
import { describeWithServer } from './describe';
import { engineOnPostgres } from './engine';
import { PostgresServer } from './server';

// A disk that others keep busy makes a story of many commits long.
jest.setTimeout(120_000);

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
