import { describeWith } from '../programs';
import { isThere } from './server';

/** `describe`, or where there is no etcd, `describe.skip`. */
export const describeWithServer = describeWith(isThere, 'there is no etcd (etcd, etcdctl) on PATH');
