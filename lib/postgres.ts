export type { PostgresConfig, PostgresOptions } from './engines/postgres/config';
export { connect } from './engines/postgres/postgres';
export type { Space, SpaceOptions } from './remote/space';
