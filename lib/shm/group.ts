import { argumentValueError } from '../common/errors';
import { errorOf, Status } from './errors';
import { records } from './thread';

/**
 * The id of a group, as the native part takes it; -1: none is meant.
 * @throws {TypeError} `ERR_INVALID_ARG_VALUE` if there is no such group
 */
export function groupId(group: string | number | undefined): number {
  if (group === undefined) return -1;
  if (typeof group === 'number') return group;
  const { native } = records().ready;
  const id = native.binding.groupId(group);
  if (id === -1) throw argumentValueError('options.group', 'must be a group of this system', group);
  if (id < 0)
    throw errorOf(
      Status.SYSTEM,
      'find the group of',
      { name: group, file: 'the list of groups' },
      { ...native.failure(), errno: -id },
    );
  return id;
}
