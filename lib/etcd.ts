export type { EtcdAuth, EtcdCredentials, EtcdOptions } from './engines/etcd/config';
export { connect } from './engines/etcd/etcd';
export type { Space, SpaceOptions } from './remote/space';
